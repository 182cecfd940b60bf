package sitecli

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/sitecli/bootfile"
)

// keptFile, below the data directory, keeps what a file said that was found at the first start, without its secret.
const keptFile = "site.yaml"

// settings are what a file said, and where it stands.
type settings struct {
	bootfile.File
	// found is the path of a file that was found, not named.
	found string
	// path is that of any file with a secret.
	path string
}

// errNoSecret is what is said of a file that lets nobody join.
var errNoSecret = errors.New("it has neither join nor claim, and this machine has not joined: add one, or remove the file")

// configure fills o from flags, then the environment, then a file: the one that --config names; else, once the machine
// has joined, what was kept of the one that was found then; else, when flags and environment say nothing of how to
// join, the one that is found now.
func configure(cmd *cobra.Command, d Deps, config string, o *RunOptions) error {
	if o.Join == "" && o.Claim == "" {
		o.Join, o.Claim = os.Getenv(TokenEnv), os.Getenv(ClaimEnv)
	}
	if o.Join != "" && o.Claim != "" {
		return errors.New("--join and --claim: give one of them")
	}
	s, err := readSettings(cmd, d, config, o)
	if err != nil {
		return err
	}
	if o.DataDir, err = d.DataDir(o.DataDir); err != nil {
		return err
	}
	if o.Join == "" && o.Claim == "" {
		o.Join, o.Claim = s.Join, s.Claim
		if s.Secret() {
			o.Joined = func(log *slog.Logger) { s.joined(log) }
		}
	}
	s.fill(cmd, o)
	if s.found == "" {
		return nil
	}
	// Before the machine joins, so that it cannot be one that joined and lost its settings.
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if err := bootfile.Write(filepath.Join(o.DataDir, keptFile), s.WithoutSecret()); err != nil {
		return fmt.Errorf("keep what %s says: %w", s.found, err)
	}
	return nil
}

// readSettings finds the file that counts, if any, and sets o.DataDir if it is --config's to say.
func readSettings(cmd *cobra.Command, d Deps, config string, o *RunOptions) (settings, error) {
	if config != "" {
		f, err := bootfile.Read(config)
		if err == nil && !cmd.Flags().Changed("data-dir") && os.Getenv(homeEnv) == "" && f.DataDir != "" {
			o.DataDir = f.DataDir
		}
		return settings{File: f, path: config}, err
	}
	dir, err := d.DataDir(o.DataDir)
	if err != nil {
		return settings{}, err
	}
	if d.Joined != nil && d.Joined(dir) {
		kept := filepath.Join(dir, keptFile)
		f, err := bootfile.Read(kept)
		if errors.Is(err, os.ErrNotExist) {
			return settings{}, nil
		}
		return settings{File: f}, err
	}
	if o.Join != "" || o.Claim != "" || d.Root == "" {
		return settings{}, nil
	}
	path, err := bootfile.Find(d.Root)
	if errors.Is(err, bootfile.ErrNone) {
		return settings{}, nil
	}
	if err != nil {
		return settings{}, err
	}
	f, err := bootfile.Read(path)
	switch {
	case err != nil:
		return settings{}, err
	case f.DataDir != "":
		// The next start looks for an identity before it looks for a file.
		return settings{}, fmt.Errorf("%s: data-dir: a file that is found cannot say it: use --data-dir, or name the file by --config", path)
	case !f.Secret():
		return settings{}, fmt.Errorf("%s: %w", path, errNoSecret)
	}
	return settings{File: f, found: path, path: path}, nil
}

// fill sets what no flag said.
func (s settings) fill(cmd *cobra.Command, o *RunOptions) {
	for _, v := range []struct {
		flag string
		to   *string
		said string
	}{
		{"gateway-addr", &o.GatewayAddr, s.GatewayAddr}, {"tls-cert", &o.TLSCert, s.TLSCert}, {"tls-key", &o.TLSKey, s.TLSKey},
		{"ca-file", &o.CAFile, s.CAFile}, {"neighbour-addr", &o.NeighbourAddr, s.NeighbourAddr}, {"log-level", &o.LogLevel, s.LogLevel}, {"log-format", &o.LogFormat, s.LogFormat},
	} {
		if v.said != "" && !cmd.Flags().Changed(v.flag) {
			*v.to = v.said
		}
	}
	if len(s.GatewayNames) > 0 && !cmd.Flags().Changed("gateway-name") {
		o.GatewayNames = s.GatewayNames
	}
	if s.AdminAddr != nil && !cmd.Flags().Changed("admin-addr") {
		o.AdminAddr = *s.AdminAddr
	}
	if o.Proxy == "" && os.Getenv("HTTPS_PROXY") == "" && os.Getenv("https_proxy") == "" {
		o.Proxy = s.Proxy
	}
	o.CA = s.CA
	said := cmd.Flags().Changed("gateway-addr") || s.GatewayAddr != ""
	o.GatewayExact = said && !strings.HasPrefix(o.GatewayAddr, "127.0.0.1:")
}

// joined says what becomes of the secret, which has done its work.
func (s settings) joined(log *slog.Logger) {
	if !s.RemoveSecret {
		log.Info("this machine has joined: the file may be removed, or its join token or claim code taken out", "file", s.path)
		return
	}
	if err := bootfile.RemoveSecret(s.path); err != nil {
		log.Warn("this machine has joined, but the file keeps its secret: remove it", "file", s.path, "error", err)
		return
	}
	log.Info("this machine has joined: the secret was taken out of the file", "file", s.path)
}

// checkProxy refuses what is no URL of a proxy.
func checkProxy(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
		return errors.New("--proxy: want http://HOST:PORT, https:// or socks5://") // it may hold a password
	}
	return nil
}
