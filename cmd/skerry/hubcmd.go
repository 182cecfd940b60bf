package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/cmd/internal/service"
	"github.com/skerry-dev/skerry/internal/cli"
	"github.com/skerry-dev/skerry/internal/telemetry"
)

func newHub() *cobra.Command {
	c := &cobra.Command{
		Use:     "hub",
		Short:   "Run a hub",
		Example: "  skerry hub run --addr 0.0.0.0:7443 --name hub.example.com --public-url https://hub.example.com:7443",
		Args:    cobra.ArbitraryArgs,
		RunE:    cli.GroupRun,
	}
	c.AddCommand(newHubRun())
	c.AddCommand(service.HubCommands(service.Options{Program: "skerry", Out: os.Stdout})...)
	return c
}

func newHubRun() *cobra.Command {
	var o hubOptions
	var dataDir, logLevel, logFormat string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run a hub until it is told to stop",
		Long: "Run a hub: a Kubernetes API of its own, or an existing one with --kubeconfig; a bus of its own, or an\n" +
			"existing NATS with --nats-url; and one port for sites and people. Everything listens on loopback\n" +
			"unless told otherwise. It makes no SiteGrant: what may be placed where is for you to say.",
		Example: "  skerry hub run --data-dir /var/lib/skerry-hub\n" +
			"  skerry hub run --addr 0.0.0.0:7443 --name hub.example.com --public-url https://hub.example.com:7443\n" +
			"  skerry hub run --kubeconfig ~/.kube/config",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dirs.Data(dataDir)
			if err != nil {
				return err
			}
			level, err := levelOf(logLevel)
			if err != nil {
				return cli.Usage(fmt.Errorf("--log-level: %w", err))
			}
			if o.log, err = telemetry.NewLogger(os.Stderr, logFormat, level); err != nil {
				return cli.Usage(err)
			}
			if err := o.checkExternal(); err != nil {
				return cli.Usage(err)
			}
			o.dataDir = dir
			if o.siteBinaries == "" {
				self, err := os.Executable()
				if err != nil {
					return fmt.Errorf("find this program: %w", err)
				}
				o.siteBinaries = filepath.Dir(self)
			}
			o.exact, o.kubeExact = cmd.Flags().Changed("addr"), cmd.Flags().Changed("kube-addr")
			return runHub(cmd.Context(), o, hubEvents{
				api: func(url string) { o.log.Info("the Kubernetes API is ready", "url", url) },
				hub: func(url string) { o.log.Info("the hub is ready", "url", url) },
			}, func(runningHub) {})
		},
	}
	f := c.Flags()
	f.StringVar(&dataDir, "data-dir", "", "where everything is kept (default: $SKERRY_HOME, then $XDG_DATA_HOME/skerry; /var/lib/skerry for root)")
	f.StringVar(&o.addr, "addr", "127.0.0.1:7443", "address of the port for sites and people")
	f.StringVar(&o.publicURL, "public-url", "", "how sites and people reach that port (default: https:// and its address)")
	f.StringArrayVar(&o.names, "name", nil, "DNS name or IP address for the certificates; may be given again")
	f.StringVar(&o.kubeAddr, "kube-addr", "127.0.0.1:6443", "address of the embedded Kubernetes API")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "use the API of this cluster and start none")
	o.identity.AddFlags(f)
	f.StringVar(&o.natsListen, "nats-listen", "", "address of NATS' own TLS port, for hubs of many thousand sites")
	f.StringVar(&o.external.url, "nats-url", "", "use this NATS and start none; its port must be open to the hub alone; needs --nats-account and --nats-signing-key")
	f.StringVar(&o.external.account, "nats-account", "", "public key of the NATS account")
	f.StringVar(&o.external.signingKey, "nats-signing-key", "", "file with the seed of a signing key of that account")
	f.StringVar(&o.external.ca, "nats-ca", "", "file with the authority of that NATS' certificate in PEM (default: the machine's own)")
	f.StringVar(&o.adminAddr, "admin-addr", "127.0.0.1:0", "loopback address of health, metrics and profiles; empty for none")
	f.StringVar(&o.siteBinaries, "site-binaries", "", "directory with skerry-site-linux-amd64 and -arm64 for machines that install themselves (default: that of this program)")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&logFormat, "log-format", "", "text or json (default: text on a terminal)")
	return c
}

// checkExternal refuses half a description of an external NATS.
func (o hubOptions) checkExternal() error {
	e := o.external
	if e.ca != "" && e.url == "" {
		return fmt.Errorf("--nats-ca belongs to --nats-url")
	}
	if (e.url == "") != (e.account == "" && e.signingKey == "") || e.url != "" && (e.account == "" || e.signingKey == "") {
		return fmt.Errorf("--nats-url, --nats-account and --nats-signing-key belong together")
	}
	return nil
}
