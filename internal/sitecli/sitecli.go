// Package sitecli is the command line of a site's own machine: it runs the agent and asks it over its local
// socket, with the hub away too. The verbs are those of skerry-site and stand below `skerry site` as well.
//
// It imports the kernel, package site's client of the local socket, and cores; what runs an agent is handed
// in by cmd.
package sitecli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/sitecli/bootfile"
)

// TokenEnv is the environment variable that carries a join token, unseen by who lists processes.
const TokenEnv = "SKERRY_JOIN_TOKEN"

// ClaimEnv is the environment variable that carries a claim code.
const ClaimEnv = "SKERRY_CLAIM_CODE"

// homeEnv is the environment variable that places data directories.
const homeEnv = "SKERRY_HOME"

// RunOptions are what a person says of an agent to run.
type RunOptions struct {
	DataDir string
	// Join is the join token; empty when the agent has joined before.
	Join string
	// Claim is the claim code with which a machine that has no token asks to become a site; empty for none.
	Claim string
	// GatewayAddr is where the site answers; GatewayExact when another port will not do.
	GatewayAddr  string
	GatewayExact bool
	// NeighbourAddr is where neighbours on the same network are answered; empty: none are.
	NeighbourAddr string
	// TLSCert and TLSKey are files for a gateway on an address that is not loopback; both or neither.
	// Without them such a gateway has a certificate of the hub's authority for gateways, for GatewayNames
	// beside the addresses that it listens on.
	TLSCert, TLSKey string
	GatewayNames    []string
	// CAFile adds authorities for a proxy or the hub's public name, CA those that it holds itself, in PEM.
	CAFile, CA string
	// Proxy is the URL of the proxy for every connection to the hub; empty: the environment decides.
	Proxy string
	// AdminAddr serves health, metrics and profiles on loopback; empty for none.
	AdminAddr string
	LogLevel  string
	LogFormat string
	// Joined, if not nil, is told when this machine has become a member just now.
	Joined func(*slog.Logger)
}

// Deps are what cmd hands in.
type Deps struct {
	// Run runs an agent until ctx ends.
	Run func(ctx context.Context, o RunOptions) error
	// DataDir makes the directory that a flag names absolute, and finds the default.
	DataDir func(flag string) (string, error)
	// Joined reports whether the data directory is that of a machine that has joined.
	Joined func(dataDir string) bool
	// Root is where configurations are looked for on a machine that has not: "/"; empty: nowhere.
	Root string
	Out  io.Writer
}

// Commands returns the verbs.
func Commands(d Deps) []*cobra.Command {
	return []*cobra.Command{newRun(d), newStatus(d), newApps(d), newLogs(d), newFingerprint(d)}
}

func newRun(d Deps) *cobra.Command {
	var o RunOptions
	var config string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run this machine's agent",
		Long: "Run this machine's agent. The first time a join token is needed, from --join or the environment\n" +
			"variable " + TokenEnv + "; or a claim code, from --claim or " + ClaimEnv + ", with which the agent waits\n" +
			"until a person approves it for a site. Later the agent knows who it is. It starts with the network gone and\n" +
			"brings every app back. A refused token ends it with status 1 and the reason.\n\n" +
			"A file can say the same as the flags, and the token: --config, or, on a machine that has not joined and is\n" +
			"told nothing else, " + bootfile.SystemFile + " or skerry-site.yaml on a mounted medium. Flags win over the\n" +
			"environment, and that over the file.",
		Example: "  skerry-site run --join skj1.… --data-dir /var/lib/skerry\n  skerry-site run --data-dir /var/lib/skerry --gateway-addr 0.0.0.0:443 --gateway-name shop.example.com\n" +
			"  skerry-site run --data-dir /var/lib/skerry --gateway-addr 0.0.0.0:443 --tls-cert shop.crt --tls-key shop.key\n" +
			"  skerry-site run --config site.yaml",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := configure(cmd, d, config, &o); err != nil {
				return err
			}
			if err := errors.Join(checkGateway(o), checkProxy(o.Proxy)); err != nil {
				return err
			}
			return d.Run(cmd.Context(), o)
		},
	}
	f := c.Flags()
	dataDirFlag(c, &o.DataDir)
	f.StringVar(&config, "config", "", "file with what other flags would say, and the token (YAML or JSON)")
	f.StringVar(&o.Join, "join", "", "join token, needed once")
	f.StringVar(&o.Claim, "claim", "", "claim code, to wait for somebody's approval instead")
	f.StringVar(&o.GatewayAddr, "gateway-addr", "127.0.0.1:8080", "where the site answers; on loopback a taken port is replaced by a free one")
	f.StringVar(&o.NeighbourAddr, "neighbour-addr", "", "where this site answers its neighbours on the local network (Site.spec.network), such as 0.0.0.0:7444; empty: it takes no part")
	f.StringVar(&o.TLSCert, "tls-cert", "", "certificate (PEM) of the gateway; default: one of the hub's authority for gateways, except on loopback")
	f.StringVar(&o.TLSKey, "tls-key", "", "key (PEM) of the gateway")
	f.StringArrayVar(&o.GatewayNames, "gateway-name", nil, "DNS name or address in the certificate of the hub's authority, beside those of --gateway-addr; may be repeated")
	f.StringVar(&o.CAFile, "ca-file", "", "more authorities (PEM) to trust for the hub's public name or a proxy")
	f.StringVar(&o.Proxy, "proxy", "", "proxy for every connection to the hub, http://HOST:PORT (default: HTTPS_PROXY and NO_PROXY of the environment)")
	f.StringVar(&o.AdminAddr, "admin-addr", "127.0.0.1:0", "loopback address of health, metrics and profiles; empty for none")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.LogFormat, "log-format", "", "text or json (default: text on a terminal)")
	return c
}

// checkGateway refuses flags of the gateway that would have no effect.
func checkGateway(o RunOptions) error {
	switch {
	case (o.TLSCert == "") != (o.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key: give both or neither")
	case len(o.GatewayNames) > 0 && o.TLSCert != "":
		return errors.New("--gateway-name is for a certificate from the hub: leave it out, or --tls-cert and --tls-key")
	}
	if err := enroll.ValidateServingNames(o.GatewayNames); err != nil {
		return fmt.Errorf("--gateway-name: %w", err)
	}
	return nil
}

func dataDirFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "data-dir", "", "where the agent keeps everything (default: $SKERRY_HOME, then $XDG_DATA_HOME/skerry; /var/lib/skerry for root)")
}

func newStatus(d Deps) *cobra.Command {
	var dir, output string
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show how this machine's agent is",
		Example: "  skerry-site status --data-dir /var/lib/skerry",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s site.Status
			if err := get(cmd.Context(), d, dir, "/status", nil, &s); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(d.Out, s)
			}
			w := tabwriter.NewWriter(d.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "Site:\t%s\nMember:\t%s\nVersion:\t%s\nHub:\t%s\nManifest:\t%d\nGateway:\t%s\nProcess:\t%d\n",
				s.Site, s.Member, s.Version, s.Link, s.Generation, s.Gateway, s.PID)
			for _, part := range sortedKeys(s.Problems) {
				fmt.Fprintf(w, "Problem:\t%s: %s\n", part, s.Problems[part])
			}
			return w.Flush()
		},
	}
	dataDirFlag(c, &dir)
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

func newApps(d Deps) *cobra.Command {
	var dir, output string
	c := &cobra.Command{
		Use:     "apps",
		Short:   "Show the apps of this machine",
		Example: "  skerry-site apps --data-dir /var/lib/skerry",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r app.Report
			if err := get(cmd.Context(), d, dir, "/apps", nil, &r); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(d.Out, r)
			}
			w := tabwriter.NewWriter(d.Out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "APP\tRELEASE\tSTATE\tHEALTHY\tRESTARTS\tURL\tMESSAGE")
			for _, a := range r.Apps {
				healthy := map[bool]string{true: "yes", false: "no"}[a.Healthy()]
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", a.App, a.Desired.Version, a.Phase, healthy, a.Restarts, a.URL, a.Message)
			}
			return w.Flush()
		},
	}
	dataDirFlag(c, &dir)
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

func newLogs(d Deps) *cobra.Command {
	var dir string
	var tail int
	var follow bool
	c := &cobra.Command{
		Use:     "logs NAMESPACE/APP",
		Short:   "Show what an app of this machine prints",
		Example: "  skerry-site logs default/hello -f --data-dir /var/lib/skerry",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := args[0]
			if !strings.Contains(key, "/") {
				key = "default/" + key
			}
			query := url.Values{"app": {key}, "tail": {strconv.Itoa(tail)}}
			if follow {
				query.Set("follow", "1")
			}
			res, err := ask(cmd.Context(), d, dir, "/logs", query)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			_, err = io.Copy(d.Out, res.Body)
			if cmd.Context().Err() != nil {
				return nil // Ctrl-C is how a follow ends
			}
			return err
		},
	}
	dataDirFlag(c, &dir)
	c.Flags().IntVar(&tail, "tail", 100, "how many of the last lines to begin with; -1 for all that is kept")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with lines as they come, until Ctrl-C")
	return c
}

// noAgent adds to an error what the person can do.
type noAgent struct{ error }

// Unwrap lets errors.Is see the cause.
func (n noAgent) Unwrap() error { return n.error }

// Hint says what the person can do.
func (n noAgent) Hint() string {
	return "start it with `skerry-site run --data-dir DIR`, or name its data directory with --data-dir"
}

func ask(ctx context.Context, d Deps, dir, path string, query url.Values) (*http.Response, error) {
	dir, err := d.DataDir(dir)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	res, err := site.LocalClient(dir).Do(req)
	if errors.Is(err, site.ErrNoAgent) {
		return nil, noAgent{fmt.Errorf("no agent runs in %s: %w", dir, site.ErrNoAgent)}
	}
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		return nil, fmt.Errorf("the agent answered: %s", strings.TrimSpace(string(body)))
	}
	return res, nil
}

// askTimeout bounds questions that the agent answers at once.
const askTimeout = 10 * time.Second

func get(ctx context.Context, d Deps, dir, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	res, err := ask(ctx, d, dir, path, query)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(v); err != nil {
		return fmt.Errorf("the agent's answer cannot be read: %w", err)
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
