package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
)

// searchPath is the PATH that programs see: fixed, so that it does not depend on who started the agent.
const searchPath = "/usr/local/bin:/usr/bin:/bin"

// findProgram returns the absolute path of the program that command names inside dir. Symbolic links may
// not lead out of dir.
func findProgram(dir string, command []string) (string, error) {
	if len(command) == 0 || !app.LocalPath(command[0]) {
		return "", fmt.Errorf("process.command %q: must begin with a path inside the bundle: %w", command, ErrSpec)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("bundle directory: %w: %w", err, ErrSpec)
	}
	defer root.Close()
	info, err := root.Stat(command[0])
	if err != nil {
		return "", fmt.Errorf("process.command[0] %q: %w: %w", command[0], err, ErrSpec)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("process.command[0] %q: is not a regular file: %w", command[0], ErrSpec)
	}
	if info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("process.command[0] %q: is not executable; set its mode to 0755 before the push: %w", command[0], ErrSpec)
	}
	return filepath.Join(dir, filepath.FromSlash(command[0])), nil
}

// environ is the whole environment of the program, in order. What the runtime sets wins over what was
// declared, but for PATH.
func (p plan) environ(port int) []string {
	env := map[string]string{"PATH": searchPath}
	for name, value := range p.spec.Env {
		env[name] = value
	}
	if p.task == "" {
		env["PORT"] = strconv.Itoa(port)
	} else {
		env[envTask] = p.task
	}
	env["HOME"] = p.home()
	env["TMPDIR"] = p.tmp()
	env["SKERRY_NAMESPACE"] = p.spec.App.Namespace
	env["SKERRY_APP"] = p.spec.App.Name
	env["SKERRY_RELEASE"] = p.spec.Release
	if p.spec.ConfigDir != "" {
		env["SKERRY_CONFIG_DIR"] = p.spec.ConfigDir
	}
	if p.spec.SecretDir != "" {
		env["SKERRY_SECRETS_DIR"] = p.spec.SecretDir
	}
	for name, dir := range p.spec.DataDirs {
		env["SKERRY_DATA_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = dir
	}
	out := make([]string, 0, len(env))
	for name, value := range env {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

func (p plan) work() string { return filepath.Join(p.spec.Scratch, "work") }
func (p plan) tmp() string  { return filepath.Join(p.spec.Scratch, "tmp") }
func (p plan) home() string { return filepath.Join(p.spec.Scratch, "home") }
