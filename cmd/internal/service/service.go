// Package service makes one of our programs a service of a machine: the binary in its place, its directories,
// and a systemd unit. It takes all of it away again.
//
// Only cmd imports it. It changes nothing but what it says, can write into the root of an image as well as of
// the running machine, and is repeatable: what is there already is set right. Where systemd does not run it
// leaves the unit, and says so.
package service

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// Service is what to install.
type Service struct {
	// Name of the unit; Program is that of the binary, Name when empty.
	Name, Program, Description string
	// Args are those of the program, each one word of the command line.
	Args []string
	// DataDir is where the service keeps everything; absolute.
	DataDir string
	// DataMode is the mode of DataDir.
	DataMode fs.FileMode
	// Delegate gives the service a part of the control groups of its own, to bound what it starts.
	Delegate bool
	// Confine takes from the service every right that a program needs which starts no others.
	Confine bool
	// Root is put before every path, as for an image that is being built; empty for this machine.
	Root string
	// Start tells systemd to start the service now and at each boot, where systemd runs.
	Start bool
	// Out is told what was done, a line each.
	Out io.Writer
}

// Paths of a service, without Root.
func (s Service) binary() string { return "/usr/local/bin/" + cmp.Or(s.Program, s.Name) }
func (s Service) unit() string   { return "/etc/systemd/system/" + s.Name + ".service" }

func (s Service) at(path string) string { return filepath.Join(s.Root, path) }

var unitText = template.Must(template.New("unit").Parse(`# Written by Skerry's install command, which writes it anew. Change it by a drop-in: systemctl edit {{.Name}}
[Unit]
Description={{.Description}}
Documentation=https://github.com/skerry-dev/skerry
# It starts without a network, too.
After=network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={{.Command}}
Restart=always
RestartSec=2
# In order: requests end, programs are asked to stop.
TimeoutStopSec=90
# What it started ends with it: a killed agent leaves nothing behind that nobody watches.
KillMode=mixed
LimitNOFILE=1048576
{{- if .Delegate}}
# Limits of apps are control groups below this unit's own.
Delegate=yes
{{- end}}
{{- if .Confine}}
# It starts nothing but itself and needs few rights. What it writes lies below directories that a person names.
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER
ProtectSystem=full
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
{{- end}}

[Install]
WantedBy=multi-user.target
`))

// Unit is the text of the systemd unit.
func (s Service) Unit() ([]byte, error) {
	words := []string{s.binary()}
	for _, arg := range s.Args {
		if strings.ContainsAny(arg, "\x00\n\r") {
			return nil, fmt.Errorf("argument %q: holds a character that no unit can carry", arg)
		}
		words = append(words, quote(arg))
	}
	var b bytes.Buffer
	err := unitText.Execute(&b, struct {
		Service
		Command string
	}{s, strings.Join(words, " ")})
	return b.Bytes(), err
}

// quote writes a word as systemd.service(5) reads it back: no variable, specifier or quote is left to act.
func quote(word string) string {
	word = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", "$$", "%", "%%").Replace(word)
	if word == "" || strings.ContainsAny(word, " \t'\";") {
		return `"` + word + `"`
	}
	return word
}

// Install puts the running program in its place and makes it a service. It needs root, unless Root is given.
func (s Service) Install(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	unit, err := s.Unit()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.at(s.DataDir), s.DataMode); err != nil {
		return fmt.Errorf("make data directory: %w", explain(err))
	}
	if err := os.Chmod(s.at(s.DataDir), s.DataMode); err != nil {
		return fmt.Errorf("open data directory: %w", explain(err))
	}
	if !same(self, s.at(s.binary())) {
		if err := place(self, s.at(s.binary()), 0o755); err != nil {
			return fmt.Errorf("install program: %w", explain(err))
		}
		fmt.Fprintln(s.Out, "installed", s.binary())
	}
	if err := write(s.at(s.unit()), bytes.NewReader(unit), 0o644); err != nil {
		return fmt.Errorf("install unit: %w", explain(err))
	}
	fmt.Fprintln(s.Out, "installed", s.unit())
	if !s.systemd() {
		fmt.Fprintf(s.Out, "systemd does not run here; the service is started by: %s %s\n", s.binary(), strings.Join(s.Args, " "))
		return nil
	}
	commands := [][]string{{"daemon-reload"}}
	if s.Start {
		commands = append(commands, []string{"enable", s.Name}, []string{"restart", s.Name})
	}
	for _, args := range commands {
		if err := systemctl(ctx, args...); err != nil {
			return err
		}
	}
	if s.Start {
		fmt.Fprintf(s.Out, "started %s; its log: journalctl -u %s -f\n", s.Name, s.Name)
	}
	return nil
}

// Uninstall stops the service and takes away what Install put there. Data stays unless purge is given.
func (s Service) Uninstall(ctx context.Context, purge bool) error {
	if s.systemd() {
		if err := systemctl(ctx, "disable", "--now", s.Name); err != nil && exists(s.at(s.unit())) {
			return err
		}
	}
	found := false
	for _, path := range []string{s.unit(), s.binary()} {
		err := os.Remove(s.at(path))
		if err == nil {
			found = true
			fmt.Fprintln(s.Out, "removed", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("uninstall: %w", explain(err))
		}
	}
	if s.systemd() {
		if err := systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
	}
	switch {
	case purge:
		if err := os.RemoveAll(s.at(s.DataDir)); err != nil {
			return fmt.Errorf("remove data: %w", explain(err))
		}
		fmt.Fprintln(s.Out, "removed", s.DataDir)
	case exists(s.at(s.DataDir)):
		fmt.Fprintf(s.Out, "kept %s: --purge removes it\n", s.DataDir)
	case !found:
		fmt.Fprintf(s.Out, "%s is not installed\n", s.Name)
	}
	return nil
}

// systemd reports whether it runs this machine; an image that is being built is not run.
func (s Service) systemd() bool { return s.Root == "" && exists("/run/systemd/system") }

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// place copies a program. A running one is replaced, not written into.
func place(from, to string, mode fs.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return write(to, f, mode)
}

// write makes a file whole or not at all.
func write(path string, content io.Reader, mode fs.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// explain adds to a refusal what to do about it.
func explain(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run this as root", err)
	}
	return err
}
