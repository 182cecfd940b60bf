package sitecli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/sitecli/bootfile"
)

// machine is a root directory and what `run` made of it.
type machine struct {
	t      *testing.T
	root   string
	joined bool
	ran    []RunOptions
}

func (m *machine) write(name, content string) string {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// dataDir is what the machine uses when nothing is said.
func (m *machine) dataDir() string { return filepath.Join(m.root, "data") }

func (m *machine) run(args ...string) (RunOptions, error) {
	m.t.Helper()
	m.ran = nil
	c := newRun(Deps{
		Run: func(_ context.Context, o RunOptions) error { m.ran = append(m.ran, o); return nil },
		DataDir: func(dir string) (string, error) {
			if dir == "" {
				dir = m.dataDir()
			}
			return dir, nil
		},
		Joined: func(string) bool { return m.joined }, Root: m.root, Out: io.Discard,
	})
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetArgs(args)
	err := c.ExecuteContext(m.t.Context())
	if err != nil || len(m.ran) != 1 {
		return RunOptions{}, errors.Join(err, errors.New("it did not run"))
	}
	return m.ran[0], nil
}

func joinToken(t *testing.T) string {
	t.Helper()
	return enroll.NewToken([]string{"https://hub.example.com"}, [32]byte{1}, time.Unix(1, 0)).Text()
}

func TestConfigPrecedence(t *testing.T) {
	fromFile, fromEnv, fromFlag := joinToken(t), joinToken(t), joinToken(t)
	file := "join: " + fromFile + "\ngateway-addr: 0.0.0.0:443\ngateway-name: [a.example]\nproxy: http://file:1\nlog-level: debug\nadmin-addr: ''\nca: pem\n"
	all := RunOptions{Join: fromFile, GatewayAddr: "0.0.0.0:443", GatewayExact: true, GatewayNames: []string{"a.example"}, Proxy: "http://file:1", LogLevel: "debug", CA: "pem"}
	with := func(change func(*RunOptions)) RunOptions { o := all; change(&o); return o }
	tests := []struct {
		reason string
		args   []string
		env    map[string]string
		want   RunOptions
	}{
		{"the file says it all", nil, nil, all},
		{"a flag wins", []string{"--gateway-addr", "127.0.0.1:81", "--gateway-name", "b.example", "--log-level", "warn", "--admin-addr", "127.0.0.1:9"}, nil,
			with(func(o *RunOptions) {
				o.GatewayAddr, o.GatewayExact, o.GatewayNames, o.LogLevel, o.AdminAddr = "127.0.0.1:81", false, []string{"b.example"}, "warn", "127.0.0.1:9"
			})},
		{"the environment's token wins", nil, map[string]string{TokenEnv: fromEnv}, with(func(o *RunOptions) { o.Join = fromEnv })},
		{"a flag's token wins over both", []string{"--join", fromFlag}, map[string]string{TokenEnv: fromEnv}, with(func(o *RunOptions) { o.Join = fromFlag })},
		{"a claim code in the environment leaves the file's token out", nil, map[string]string{ClaimEnv: "skc1.x"}, with(func(o *RunOptions) { o.Join, o.Claim = "", "skc1.x" })},
		{"the environment has a proxy, which is read where it always was", nil, map[string]string{"HTTPS_PROXY": "http://env:1"}, with(func(o *RunOptions) { o.Proxy = "" })},
		{"a flag's proxy wins over both", []string{"--proxy", "http://flag:1"}, map[string]string{"HTTPS_PROXY": "http://env:1"}, with(func(o *RunOptions) { o.Proxy = "http://flag:1" })},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			for _, name := range []string{TokenEnv, ClaimEnv, "HTTPS_PROXY", "https_proxy", homeEnv} {
				t.Setenv(name, tt.env[name])
			}
			m := &machine{t: t, root: t.TempDir()}
			got, err := m.run(append(tt.args, "--config", m.write("named.yaml", file))...)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.DataDir, tt.want.LogFormat = m.dataDir(), ""
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(RunOptions{}, "Joined")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestConfigDataDir(t *testing.T) {
	t.Setenv(homeEnv, "")
	m := &machine{t: t, root: t.TempDir()}
	named := m.write("named.yaml", "join: "+joinToken(t)+"\ndata-dir: /from/file\n")
	if got, err := m.run("--config", named); err != nil || got.DataDir != "/from/file" {
		t.Errorf("the file's data directory: %q, %v", got.DataDir, err)
	}
	if got, err := m.run("--config", named, "--data-dir", "/from/flag"); err != nil || got.DataDir != "/from/flag" {
		t.Errorf("the flag's data directory: %q, %v", got.DataDir, err)
	}
	t.Setenv(homeEnv, "/from/home")
	if got, err := m.run("--config", named); err != nil || got.DataDir == "/from/file" {
		t.Errorf("the environment must win over the file: %q, %v", got.DataDir, err)
	}
}

// TestFirstBoot goes through the life of a machine that finds a file.
func TestFirstBoot(t *testing.T) {
	for _, name := range []string{TokenEnv, ClaimEnv, homeEnv, "HTTPS_PROXY", "https_proxy"} {
		t.Setenv(name, "")
	}
	join := joinToken(t)
	m := &machine{t: t, root: t.TempDir()}
	if got, err := m.run(); err != nil || got.Join != "" {
		t.Fatalf("with no file: %v, %v", got.Join != "", err) // the agent itself says what it lacks
	}
	path := m.write("media/stick/skerry-site.yaml", "# for the shop\njoin: "+join+"\ngateway-addr: 0.0.0.0:8443\nremove-secret: true\n")
	if got, err := m.run("--join", "skj1.other"); err != nil || got.GatewayAddr == "0.0.0.0:8443" {
		t.Errorf("a machine that is told how to join must not look for a file: %v, %v", got.GatewayAddr, err)
	}
	got, err := m.run()
	if err != nil || got.Join != join || got.GatewayAddr != "0.0.0.0:8443" || !got.GatewayExact {
		t.Fatalf("first boot: %v, %+v", err, got.GatewayAddr)
	}
	m.joined = true
	got.Joined(slog.New(slog.DiscardHandler))
	if left, err := bootfile.Read(path); err != nil || left.Secret() || left.GatewayAddr == "" {
		t.Errorf("the secret must be taken out of the file, and nothing else: %v", err)
	}
	if err := os.Remove(path); err != nil { // the stick is pulled out
		t.Fatal(err)
	}
	if got, err = m.run(); err != nil || got.Join != "" || got.GatewayAddr != "0.0.0.0:8443" {
		t.Errorf("second boot: %v, %q", err, got.GatewayAddr)
	}
	kept := filepath.Join(m.dataDir(), keptFile)
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("what is kept: %v", err)
	}
	if data, err := os.ReadFile(kept); err != nil || strings.Contains(string(data), join) {
		t.Errorf("what is kept holds the secret: %v", err)
	}
	m.write("media/later/skerry-site.yaml", "join: "+joinToken(t)+"\ngateway-addr: 0.0.0.0:1\n")
	if got, err = m.run(); err != nil || got.Join != "" || got.GatewayAddr != "0.0.0.0:8443" {
		t.Errorf("a stick in a machine that has joined must do nothing: %v, %q", err, got.GatewayAddr)
	}
}

func TestFirstBootRefuses(t *testing.T) {
	for _, name := range []string{TokenEnv, ClaimEnv, homeEnv} {
		t.Setenv(name, "")
	}
	tests := []struct{ reason, content, says string }{
		{"a file that lets nobody join", "log-level: debug\n", "neither join nor claim"},
		{"a place that the next start would not know", "join: " + joinToken(t) + "\ndata-dir: /elsewhere\n", "data-dir"},
		{"a slip of the pen", "jion: x\n", "line 1"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			m := &machine{t: t, root: t.TempDir()}
			path := m.write("etc/skerry/site.yaml", tt.content)
			_, err := m.run()
			if len(m.ran) != 0 || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
		})
	}
	m := &machine{t: t, root: t.TempDir()}
	if _, err := m.run("--config", filepath.Join(m.root, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named file that is not there: %v", err)
	}
	if _, err := m.run("--proxy", "proxy:3128"); err == nil || !strings.Contains(err.Error(), "--proxy") || len(m.ran) != 0 {
		t.Errorf("a proxy that is no URL: %v", err)
	}
}

// TestSecretThatStays: a file on a medium that cannot be written is no reason to fail.
func TestSecretThatStays(t *testing.T) {
	var said strings.Builder
	log := slog.New(slog.NewTextHandler(&said, nil))
	settings{File: bootfile.File{Join: "x", RemoveSecret: true}, path: filepath.Join(t.TempDir(), "gone.yaml")}.joined(log)
	if !strings.Contains(said.String(), "keeps its secret") {
		t.Errorf("it says %q", said.String())
	}
	said.Reset()
	settings{File: bootfile.File{Join: "x"}, path: "/media/x/skerry-site.yaml"}.joined(log)
	if !strings.Contains(said.String(), "may be removed") || !strings.Contains(said.String(), "/media/x/skerry-site.yaml") {
		t.Errorf("it says %q", said.String())
	}
}
