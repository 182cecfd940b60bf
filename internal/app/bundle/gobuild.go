package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxCompilerLines is how much of what the compiler says is repeated.
	maxCompilerLines = 20
	// maxOutputBytes bounds what is kept of it at all.
	maxOutputBytes = 64 << 10
	// waitDelay is how long a build that was cancelled may take to let go of its output.
	waitDelay = 5 * time.Second
)

// carried are the settings of the author's toolchain that say where things come from and are kept, not
// what comes out. All other settings of Go are left out of the build.
var carried = []string{
	"GOAUTH", "GOCACHE", "GOINSECURE", "GOMODCACHE", "GONOPROXY", "GONOSUMDB", "GOPATH", "GOPRIVATE", "GOPROXY",
	"GOSUMDB", "GOTOOLCHAIN", "GOVCS",
}

// toolchain is a go command and the environment in which it builds reproducibly.
type toolchain struct {
	path string
	env  []string
}

// findToolchain asks the go command for the settings to carry over.
func findToolchain(ctx context.Context, command, dir string) (toolchain, error) {
	if command == "" {
		command = "go"
	}
	path, err := exec.LookPath(command)
	if err != nil {
		return toolchain{}, failf(ErrToolchain, "install Go from https://go.dev/dl, or build the program yourself and name it under build.files", "there is no program %q to build the app with", command)
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"env", "-json"}, carried...)...)
	cmd.Dir, cmd.WaitDelay = dir, waitDelay
	var stderr bounded
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return toolchain{}, failf(ErrToolchain, "try `go version`", "%s env: %v: %s", command, err, stderr.lines())
	}
	settings := map[string]string{}
	if err := json.Unmarshal(out, &settings); err != nil {
		return toolchain{}, failf(ErrToolchain, "try `go env -json`", "%s env: %v", command, err)
	}
	return toolchain{path: path, env: buildEnv(os.Environ(), settings)}, nil
}

// buildEnv keeps of the caller's environment what does not decide about the outcome.
func buildEnv(environ []string, settings map[string]string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "CGO_") || name == "PWD" {
			continue
		}
		env = append(env, kv)
	}
	for _, name := range carried {
		if settings[name] != "" {
			env = append(env, name+"="+settings[name])
		}
	}
	// GOENV=off: the author's `go env -w` must not decide either.
	return append(env, "CGO_ENABLED=0", "GOENV=off", "GOWORK=off")
}

// build compiles one program for one platform.
func (t toolchain) build(ctx context.Context, dir string, g GoBuild, p Platform, out string) error {
	ldflags := "-s -w"
	if g.LDFlags != nil {
		ldflags = *g.LDFlags
	}
	cmd := exec.CommandContext(ctx, t.path, "build", "-trimpath", "-buildvcs=false", "-ldflags="+strings.TrimSpace(ldflags+" -buildid="), "-o", out, g.Package)
	cmd.Dir, cmd.WaitDelay = dir, waitDelay
	cmd.Env = append(slices.Clone(t.env), "GOOS="+p.OS, "GOARCH="+p.Arch)
	for _, name := range sortedKeys(g.Env) {
		cmd.Env = append(cmd.Env, name+"="+g.Env[name])
	}
	var said bounded
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("build for %s: %w", p, ctx.Err())
	case errors.As(err, &exit):
		hint := "mend what the compiler says, and try again"
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
			hint = "the app needs a go.mod in its directory: go mod init NAME"
		}
		return failf(ErrCompile, hint, "the app does not compile for %s:\n%s", p, said.lines())
	}
	return failf(ErrToolchain, "try `go version`", "build for %s: %v", p, err)
}

// bounded keeps the first bytes that are written to it.
type bounded struct{ bytes.Buffer }

// Write keeps what fits and never fails.
func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, maxOutputBytes-b.Len()))])
	return len(p), nil
}

func (b *bounded) lines() string {
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) > maxCompilerLines {
		lines = append(lines[:maxCompilerLines], fmt.Sprintf("... and %d lines more", len(lines)-maxCompilerLines))
	}
	return strings.Join(lines, "\n")
}
