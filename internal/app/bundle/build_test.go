package bundle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/ociregistry"
	"github.com/skerry-dev/skerry/internal/testenv"
)

func scaffold(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Scaffold(dir, name, app.RuntimeProcess); err != nil {
		t.Fatal(err)
	}
	return dir
}

func build(t *testing.T, dir, version string, opts Options) *Bundle {
	t.Helper()
	b, err := Build(t.Context(), dir, version, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the bundle's files are left after Close: %v", err)
		}
	})
	return b
}

// write makes a file with its directories.
func write(t *testing.T, dir, file, content string, mode os.FileMode) {
	t.Helper()
	file = filepath.Join(dir, file)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(file, []byte(content), mode), os.Chmod(file, mode)); err != nil {
		t.Fatal(err)
	}
}

func images(t *testing.T, idx v1.ImageIndex) map[string]v1.Image {
	t.Helper()
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]v1.Image{}
	for _, d := range m.Manifests {
		img, err := idx.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if d.ArtifactType != app.MediaTypeBundle {
			t.Errorf("artifactType of %s is %q", d.Platform, d.ArtifactType)
		}
		out[d.Platform.String()] = img
	}
	return out
}

// unpack returns the names and modes of a bundle's files, and writes them to dir unless it is empty.
func unpack(t *testing.T, img v1.Image, dir string) map[string]int64 {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers are %v, %v; want one", layers, err)
	}
	rc, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	out := map[string]int64{}
	for r := tar.NewReader(rc); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s depends on the machine: %+v", h.Name, h)
		}
		out[h.Name] = h.Mode
		if dir != "" {
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, h.Name, string(content), os.FileMode(h.Mode))
		}
	}
}

func TestSameSourceSameDigest(t *testing.T) {
	testenv.Require(t, testenv.Tool("go"))
	first := build(t, scaffold(t, "hello"), "1.0.0", Options{})

	// Another directory, another time, and an author with settings of his own.
	dir := scaffold(t, "hello")
	past := time.Now().Add(-1000 * time.Hour)
	for _, f := range []string{"main.go", "page.html"} {
		if err := os.Chtimes(filepath.Join(dir, f), past, past); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Dir(dir), "go.work", "go 1.24\n", 0o600)
	t.Setenv("GOFLAGS", "-tags=mine -trimpath=false")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("CGO_ENABLED", "1")
	t.Setenv("GOOS", "windows")
	second := build(t, dir, "1.0.0", Options{})
	if first.Digest != second.Digest {
		t.Errorf("the same source gave %s and %s", first.Digest, second.Digest)
	}
	var platforms []string
	for p := range images(t, first.Index) {
		platforms = append(platforms, p)
	}
	if len(platforms) != 2 {
		t.Errorf("platforms are %v, want two", platforms)
	}

	write(t, dir, "extra.go", "package main\n\nvar _ = func() { println() }\n\nvar more = \"content\"\n\nfunc init() { println(more) }\n", 0o600)
	if third := build(t, dir, "1.0.0", Options{Platforms: []string{"linux/amd64"}}); third.Digest == first.Digest {
		t.Error("another source gave the same digest")
	}
}

func TestBundleGoesThroughTheRegistry(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "dist/linux-amd64/tool", "#!amd64", 0o755)
	write(t, dir, "dist/linux-arm64/tool", "#!arm64", 0o644)
	write(t, dir, "assets/a/b.txt", "text", 0o600)
	write(t, dir, "assets/run.sh", "script", 0o700)
	write(t, dir, SourceFile, `
name: tool
runtime: process
build:
  files:
  - {from: "dist/{os}-{arch}/tool", to: bin/tool, mode: "0755"}
  - {from: assets}
process: {command: [bin/tool]}
`, 0o600)
	b := build(t, dir, "2.0.0", Options{})

	reg, err := ociregistry.Open(t.TempDir(), ociregistry.Options{Authorizer: anyone{}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(reg)
	t.Cleanup(func() { srv.Close(); _ = reg.Close() })
	ref, err := name.ParseReference(strings.TrimPrefix(srv.URL, "http://") + "/default/tool:2.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, b.Index); err != nil {
		t.Fatal(err)
	}
	desc, err := reg.Resolve("default/tool", "2.0.0")
	if err != nil || desc.Digest != b.Digest {
		t.Fatalf("the registry has %+v, %v; want %s", desc, err, b.Digest)
	}
	pulled, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	for platform, img := range images(t, pulled) {
		out := t.TempDir()
		want := map[string]int64{"bin/tool": 0o755, "assets/a/b.txt": 0o644, "assets/run.sh": 0o755}
		if diff := cmp.Diff(want, unpack(t, img, out)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", platform, diff)
		}
		if data, err := os.ReadFile(filepath.Join(out, "bin/tool")); err != nil || string(data) != "#!"+strings.TrimPrefix(platform, "linux/") {
			t.Errorf("%s got the tool %q, %v", platform, data, err)
		}
		manifest, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if manifest.Config.MediaType != app.MediaTypeConfig || manifest.Annotations["org.opencontainers.image.version"] != "2.0.0" || manifest.Annotations["org.opencontainers.image.title"] != "tool" {
			t.Errorf("manifest is %+v", manifest)
		}
		raw, err := reg.ReadBlob("default/tool", fleet.Digest(manifest.Config.Digest.String()), app.MaxConfigBytes)
		if err != nil {
			t.Fatal(err)
		}
		config, err := app.ParseBundleConfig(raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b.Config, config); diff != "" {
			t.Errorf("config (-built +read):\n%s", diff)
		}
	}
}

type anyone struct{}

func (anyone) Authorize(*http.Request, string, ociregistry.Action, ociregistry.Target) error {
	return nil
}

func TestBuildRefuses(t *testing.T) {
	testenv.Require(t, testenv.Tool("go"))
	const files = "name: a\nruntime: process\nbuild: {files: [%s]}\nprocess: {command: [run]}\n"
	tests := []struct {
		reason string
		lay    func(t *testing.T, dir string)
		opts   Options
		kind   error
		says   string
		hint   string
	}{
		{"no go command", nil, Options{GoCommand: "no-such-go"}, ErrToolchain, "no-such-go", "https://go.dev/dl"},
		{"a go command that fails", nil, Options{GoCommand: "false"}, ErrToolchain, "false", "go version"},
		{"code that does not compile", func(t *testing.T, dir string) { write(t, dir, "main.go", "package main\nfunc main() { x }\n", 0o600) }, Options{}, ErrCompile, "main.go:2", "compiler"},
		{"no go.mod", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "go.mod")); err != nil {
				t.Fatal(err)
			}
		}, Options{}, ErrCompile, "go.mod", "go mod init"},
		{"a platform that Go does not know", nil, Options{Platforms: []string{"plan10/amd64"}}, ErrCompile, "plan10", ""},
		{"a malformed platform", nil, Options{Platforms: []string{"linux"}}, ErrSource, "platforms[0]", ""},
		{"a file that is missing", func(t *testing.T, dir string) { write(t, dir, SourceFile, fmt.Sprintf(files, "{from: run}"), 0o600) }, Options{}, ErrSource, "run: there is no such file", "build it first"},
		{"a command that is not in the bundle", func(t *testing.T, dir string) {
			write(t, dir, SourceFile, fmt.Sprintf(files, "{from: main.go}"), 0o600)
		}, Options{}, ErrSource, `"run" is not in the bundle`, "build puts"},
		{"a command that cannot be executed", func(t *testing.T, dir string) {
			write(t, dir, SourceFile, fmt.Sprintf(files, "{from: main.go, to: run}"), 0o600)
		}, Options{}, ErrSource, "cannot be executed", "0755"},
		{"two files with one name", func(t *testing.T, dir string) {
			write(t, dir, SourceFile, fmt.Sprintf(files, "{from: main.go, to: run, mode: \"0755\"}, {from: go.mod, to: run, mode: \"0755\"}"), 0o600)
		}, Options{}, ErrSource, "meet at run", "to"},
		{"a file where a directory is", func(t *testing.T, dir string) {
			write(t, dir, SourceFile, fmt.Sprintf(files, "{from: main.go, to: run, mode: \"0755\"}, {from: go.mod, to: run/x}"), 0o600)
		}, Options{}, ErrSource, "meet at run", "to"},
		{"a symbolic link", func(t *testing.T, dir string) {
			write(t, dir, SourceFile, fmt.Sprintf(files, "{from: assets, to: run}"), 0o600)
			write(t, dir, "assets/x", "x", 0o600)
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "assets/y")); err != nil {
				t.Fatal(err)
			}
		}, Options{}, ErrSource, "not a regular file", "replace"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			dir := scaffold(t, "a")
			if tt.lay != nil {
				tt.lay(t, dir)
			}
			t.Setenv("TMPDIR", t.TempDir())
			_, err := Build(t.Context(), dir, "1.0.0", tt.opts)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(e.Hint(), tt.hint) {
				t.Fatalf("error %v; want %v that says %q with a hint of %q", err, tt.kind, tt.says, tt.hint)
			}
			if left, err := filepath.Glob(filepath.Join(os.TempDir(), "skerry-bundle-*")); err != nil || len(left) != 0 {
				t.Errorf("a refused build left %v, %v", left, err)
			}
		})
	}
	if _, err := Build(t.Context(), scaffold(t, "a"), "not a version", Options{}); !errors.Is(err, ErrSource) {
		t.Errorf("a malformed version: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(cancelled, scaffold(t, "a"), "1.0.0", Options{}); err == nil {
		t.Error("a cancelled build succeeded")
	}
}

// The program that comes out runs, answers people and programs, and stops in order.
func TestTheScaffoldedAppRuns(t *testing.T) {
	testenv.Require(t, testenv.Tool("go"))
	if runtime.GOOS != "linux" {
		t.Skip("bundles are built for linux")
	}
	b := build(t, scaffold(t, "hello"), "1.0.0", Options{Platforms: []string{"linux/" + runtime.GOARCH}})
	dir := t.TempDir()
	for _, img := range images(t, b.Index) {
		unpack(t, img, dir)
	}
	hub := filepath.Join(dir, "hub")
	write(t, dir, "hub", "away", 0o600)
	port := freePort(t)
	cmd := exec.Command(filepath.Join(dir, b.Config.Process.Command[0]))
	cmd.Env = []string{"PORT=" + port, "SKERRY_SITE=shop-2", "SKERRY_RELEASE=hello-7", "SKERRY_VERSION=1.0.0", "SKERRY_HUB_FILE=" + hub}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	line := make([]byte, 200)
	if _, err := stdout.Read(line); err != nil || !strings.Contains(string(line), "listening") {
		t.Fatalf("the first line is %q, %v", line, err)
	}
	get := func(path, accept string) string {
		t.Helper()
		req, err := http.NewRequest("GET", "http://127.0.0.1:"+port+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		return string(body)
	}
	if body := get("/healthz", ""); body != "ok\n" {
		t.Errorf("/healthz says %q", body)
	}
	if body := get("/hello", "*/*"); !strings.Contains(body, "shop-2") || !strings.Contains(body, "1.0.0") || strings.Contains(body, "<") {
		t.Errorf("to a program it says %q", body)
	}
	page := get("/hello/deeper", "text/html,*/*")
	for _, want := range []string{"<h1>shop-2</h1>", "hello-7", "1.0.0", "The hub is away", "<dd>2</dd>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(stdout)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Errorf("after SIGTERM it ended with %v", err)
	}
	if log := string(rest); !strings.Contains(log, "path=/hello") || !strings.Contains(log, "stopped in order") {
		t.Errorf("its log is %s", log)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
