// Package firstboot writes the files by which a machine becomes a site with nobody at it: the configuration of
// package bootfile, and user-data for cloud-init around it. Only package cli imports it.
package firstboot

import (
	"bytes"
	"fmt"
	"path"

	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/sitecli/bootfile"
)

// Config returns f as a file, below a line that says what it is about.
func Config(about string, f bootfile.File) ([]byte, error) {
	text, err := f.Marshal()
	if err != nil {
		return nil, err
	}
	return append([]byte("# "+about+"\n"), text...), nil
}

// cloudConfig are the parts of cloud-init's cloud-config that are used:
// https://docs.cloud-init.io/en/latest/reference/modules.html
type cloudConfig struct {
	WriteFiles []writeFile `json:"write_files"`
	RunCommand [][]string  `json:"runcmd"`
}

type writeFile struct {
	Path        string `json:"path"`
	Permissions string `json:"permissions"`
	Content     string `json:"content"`
}

// cloudHeader is what makes user-data a cloud-config.
const cloudHeader = "#cloud-config\n"

// UserData returns user-data that writes f to the place where the agent finds it, and fetches and runs the installer at
// url if it has this SHA-256 (hexadecimal digits). The secret stands in the file alone: not among the arguments of a
// command, which cloud-init logs.
func UserData(about string, f bootfile.File, url, digest string) ([]byte, error) {
	config, err := Config(about, f)
	if err != nil {
		return nil, err
	}
	const script = `set -eu; dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; ` +
		`curl -fsSk --retry 10 --retry-connrefused "$1" -o "$dir/install.sh"; ` +
		`echo "$2  $dir/install.sh" | sha256sum -c --quiet; sh "$dir/install.sh"`
	text, err := yaml.Marshal(cloudConfig{
		WriteFiles: []writeFile{{Path: path.Clean(bootfile.SystemFile), Permissions: "0600", Content: string(config)}},
		RunCommand: [][]string{{"sh", "-c", script, "skerry", url, digest}},
	})
	if err != nil {
		return nil, fmt.Errorf("write user-data: %w", err)
	}
	return bytes.Join([][]byte{[]byte(cloudHeader), text}, nil), nil
}
