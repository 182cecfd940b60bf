// Command image makes the container image of a hub, as ko does: a static Go program on nothing, without a
// daemon and without a Dockerfile. The agents that the hub hands to new machines lie beside it.
//
//	go run ./deploy/image --version 1.0.0 --output image/            # an OCI layout for both platforms
//	go run ./deploy/image --version 1.0.0 --push ghcr.io/acme/skerry
//
// The same source, toolchain and certificates make the same digest.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// options are what a person says.
type options struct {
	version, output, push string
	// binaries holds programs that were built before, as skerry-linux-amd64; empty: they are built.
	binaries  string
	platforms []string
	roots     string
}

func main() {
	var o options
	var platforms string
	flag.StringVar(&o.version, "version", "", "version, which becomes the tag (required)")
	flag.StringVar(&o.output, "output", "", "directory for an OCI image layout")
	flag.StringVar(&o.push, "push", "", "repository to push to, with the logins of the docker configuration")
	flag.StringVar(&o.binaries, "binaries", "", "directory with skerry-linux-ARCH and skerry-site-linux-ARCH; default: they are built")
	flag.StringVar(&platforms, "platforms", "amd64,arm64", "architectures")
	flag.StringVar(&o.roots, "ca-certificates", "/etc/ssl/certs/ca-certificates.crt", "authorities that the hub trusts for other services, in PEM")
	flag.Parse()
	o.platforms = strings.Split(platforms, ",")
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.version == "" || o.output == "" && o.push == "" {
		return errors.New("--version and one of --output and --push are needed")
	}
	if o.binaries == "" {
		dir, err := os.MkdirTemp("", "skerry-image-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := build(dir, o); err != nil {
			return err
		}
		o.binaries = dir
	}
	index, err := makeIndex(o)
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	if o.output != "" {
		if _, err := layout.Write(o.output, index); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
		fmt.Printf("%s@%s\n", o.output, digest)
	}
	if o.push == "" {
		return nil
	}
	ref, err := name.ParseReference(o.push + ":" + o.version)
	if err != nil {
		return fmt.Errorf("--push: %w", err)
	}
	if err := remote.WriteIndex(ref, index, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push image: %w", err)
	}
	fmt.Printf("%s@%s\n", ref, digest)
	return nil
}

// build makes both programs for every architecture, static and without paths of this machine.
func build(dir string, o options) error {
	for _, arch := range o.platforms {
		for _, program := range []string{"skerry", "skerry-site"} {
			cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, program+"-linux-"+arch), "github.com/skerry-dev/skerry/cmd/"+program)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
			cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("build %s for %s: %w", program, arch, err)
			}
		}
	}
	return nil
}

func makeIndex(o options) (v1.ImageIndex, error) {
	agents, err := agentsLayer(o)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range o.platforms {
		image, err := makeImage(o, arch, agents)
		if err != nil {
			return nil, fmt.Errorf("image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return index, nil
}

// nobody is the user that the hub runs as: it needs no right of the machine.
const nobody = "65532"

func makeImage(o options, arch string, agents v1.Layer) (v1.Image, error) {
	roots, err := os.ReadFile(o.roots)
	if err != nil {
		return nil, fmt.Errorf("--ca-certificates: %w", err)
	}
	base, err := layer(
		entry{name: "etc/passwd", mode: 0o644, data: []byte("skerry:x:" + nobody + ":" + nobody + ":skerry:/data:/skerry\n")},
		entry{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: roots},
		entry{name: "data/", mode: 0o700, owner: 65532},
		entry{name: "tmp/", mode: 0o1777},
	)
	if err != nil {
		return nil, err
	}
	program, err := layer(entry{name: "skerry", mode: 0o755, file: filepath.Join(o.binaries, "skerry-linux-"+arch)})
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.AppendLayers(image, base, agents, program)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config = v1.Config{
		Entrypoint: []string{"/skerry"}, Cmd: []string{"hub", "run", "--addr", "0.0.0.0:7443"}, User: nobody + ":" + nobody, WorkingDir: "/",
		Env: []string{"PATH=/", "SKERRY_HOME=/data"}, Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"7443/tcp": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title": "skerry", "org.opencontainers.image.version": o.version,
			"org.opencontainers.image.source": "https://github.com/skerry-dev/skerry", "org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	return mutate.ConfigFile(image, config)
}

// agentsLayer holds the agents that were built, for every architecture: the hub hands them to new machines.
func agentsLayer(o options) (v1.Layer, error) {
	var entries []entry
	for _, arch := range o.platforms {
		file := "skerry-site-linux-" + arch
		entries = append(entries, entry{name: file, mode: 0o755, file: filepath.Join(o.binaries, file)})
	}
	return layer(entries...)
}

// entry is a file or, with a name that ends in a slash, a directory of a layer.
type entry struct {
	name  string
	mode  int64
	owner int
	data  []byte
	file  string
}

// layer packs entries without any time.
func layer(entries ...entry) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.file != "" {
			data, err := os.ReadFile(e.file)
			if err != nil {
				return nil, err
			}
			e.data = data
		}
		h := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
}
