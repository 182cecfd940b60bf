// Package installer is the hub's feature that makes a machine with nothing on it a site: it serves the agent's
// binaries and a script that installs one. Only cmd imports it.
//
// What it serves is public; who pastes the line of `skerry site token --install` checks the script by its
// digest, and the script checks the binary by its own. A hub that has no binaries says where to put them.
package installer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"text/template"

	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/hub"
)

// Feature serves the agents of one directory.
type Feature struct {
	dir string
	url string
}

var _ hub.Feature = (*Feature)(nil)

// New returns the feature for a directory that holds skerry-site-linux-amd64 and -arm64, or skerry-site for
// machines like this one. Its files are read anew for each request.
func New(dir string) *Feature { return &Feature{dir: dir} }

// Name implements hub.Feature.
func (f *Feature) Name() string { return "installer" }

const pathBinary = "/install/"

// Setup implements hub.Feature.
func (f *Feature) Setup(_ context.Context, h *hub.Host) error {
	f.url = h.URL
	h.Public.HandleFunc("GET "+hubclient.PathInstaller, f.script)
	h.Public.HandleFunc("GET "+pathBinary+"{name}", f.binary)
	return nil
}

// architectures are Go's names by those of uname -m.
var architectures = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// file returns the agent for an architecture; fs.ErrNotExist when there is none.
func (f *Feature) file(arch string) (*os.File, error) {
	file, err := os.Open(filepath.Join(f.dir, "skerry-site-linux-"+arch))
	if errors.Is(err, fs.ErrNotExist) && arch == runtime.GOARCH {
		return os.Open(filepath.Join(f.dir, "skerry-site"))
	}
	return file, err
}

func (f *Feature) binary(w http.ResponseWriter, r *http.Request) {
	for _, arch := range architectures {
		if r.PathValue("name") != "skerry-site-linux-"+arch {
			continue
		}
		file, err := f.file(arch)
		if err != nil {
			break
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", info.ModTime(), file)
			return
		}
	}
	http.NotFound(w, r)
}

var installScript = template.Must(template.New("install").Parse(`#!/bin/sh
# Installs Skerry's agent on this machine and joins it to its site: sh install.sh TOKEN [FLAGS OF skerry-site install]
# Without a token the agent joins by the configuration that it finds, such as /etc/skerry/site.yaml.
set -eu
case "$(uname -s) $(uname -m)" in
{{- range .Agents}}
"Linux {{.Machine}}") name={{.Name}} digest={{.Digest}} ;;
{{- end}}
*) echo "this hub has no agent for $(uname -s) on $(uname -m)" >&2; exit 1 ;;
esac
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# The digest says whether it is the right one, whatever the certificate says.
curl -fsSk --retry 5 "{{.URL}}/install/$name" -o "$dir/skerry-site"
echo "$digest  $dir/skerry-site" | sha256sum -c >/dev/null || { echo "the agent that arrived is not the hub's" >&2; exit 1; }
chmod 755 "$dir/skerry-site"
SKERRY_JOIN_TOKEN=${1-}
export SKERRY_JOIN_TOKEN
[ $# -eq 0 ] || shift
"$dir/skerry-site" install "$@"
`))

type agentBinary struct{ Machine, Name, Digest string }

func (f *Feature) script(w http.ResponseWriter, _ *http.Request) {
	var agents []agentBinary
	for _, machine := range []string{"aarch64", "x86_64"} {
		digest, err := f.digest(architectures[machine])
		if err == nil {
			agents = append(agents, agentBinary{machine, "skerry-site-linux-" + architectures[machine], digest})
		}
	}
	if len(agents) == 0 {
		http.Error(w, fmt.Sprintf("this hub has no agent to hand out: put skerry-site-linux-amd64 or skerry-site-linux-arm64 into %s, or say --site-binaries", f.dir), http.StatusNotFound)
		return
	}
	var b bytes.Buffer
	if err := installScript.Execute(&b, map[string]any{"Agents": agents, "URL": f.url}); err != nil {
		http.Error(w, "the script could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // a caller who has gone needs no answer
}

func (f *Feature) digest(arch string) (string, error) {
	file, err := f.file(arch)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
