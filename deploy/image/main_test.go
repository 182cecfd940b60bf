package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// TestImage packs programs for two architectures, twice, and unpacks what a container would see.
func TestImage(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"skerry-linux-amd64", "skerry-linux-arm64", "skerry-site-linux-amd64", "skerry-site-linux-arm64", "roots.pem"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("this is "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var digests []v1.Hash
	var index v1.ImageIndex
	for range 2 {
		out := t.TempDir()
		o := options{version: "1.0.0", output: out, binaries: bin, platforms: []string{"amd64", "arm64"}, roots: filepath.Join(bin, "roots.pem")}
		if err := run(o); err != nil {
			t.Fatal(err)
		}
		read, err := layout.ImageIndexFromPath(out)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := read.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests, index = append(digests, digest), read
	}
	if digests[0] != digests[1] {
		t.Errorf("the same input made %s and %s", digests[0], digests[1])
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, arch := range []string{"amd64", "arm64"} {
		d := manifest.Manifests[i]
		if d.Platform == nil || d.Platform.OS != "linux" || d.Platform.Architecture != arch {
			t.Errorf("manifest %d is for %v, want linux/%s", i, d.Platform, arch)
		}
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Config.User != "65532:65532" || config.Config.Entrypoint[0] != "/skerry" || config.Architecture != arch {
			t.Errorf("config is %+v", config.Config)
		}
		want := map[string]string{
			"skerry": "this is skerry-linux-" + arch, "skerry-site-linux-amd64": "this is skerry-site-linux-amd64",
			"skerry-site-linux-arm64": "this is skerry-site-linux-arm64", "etc/ssl/certs/ca-certificates.crt": "this is roots.pem",
			"etc/passwd": "skerry:x:65532:65532:skerry:/data:/skerry\n",
		}
		if diff := cmp.Diff(want, files(t, image)); diff != "" {
			t.Errorf("%s: a container sees (-want +got):\n%s", arch, diff)
		}
	}
}

// files are what a container of the image sees.
func files(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	flat := mutate.Extract(image)
	defer flat.Close()
	out := map[string]string{}
	for r := tar.NewReader(flat); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			out[h.Name] = string(data)
		}
	}
}

func TestImageRefused(t *testing.T) {
	for _, o := range []options{
		{}, {version: "1", output: ""}, {version: "1", output: t.TempDir(), binaries: t.TempDir(), platforms: []string{"amd64"}, roots: os.DevNull},
		{version: "1", output: t.TempDir(), binaries: t.TempDir(), platforms: []string{"amd64"}, roots: "nowhere"},
		{version: "1", push: "NO SUCH NAME", binaries: t.TempDir(), roots: os.DevNull},
	} {
		if err := run(o); err == nil {
			t.Errorf("%+v was done", o)
		}
	}
}
