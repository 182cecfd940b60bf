package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/cmd/internal/backup"
	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/cmd/internal/service"
	"github.com/skerry-dev/skerry/internal/cli"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/telemetry"
)

func newHub(out io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use:     "hub",
		Short:   "Run a hub, and keep it",
		Example: "  skerry hub run --addr 0.0.0.0:7443 --name hub.example.com --public-url https://hub.example.com:7443",
		Args:    cobra.ArbitraryArgs,
		RunE:    cli.GroupRun,
	}
	c.AddCommand(newHubRun(), newHubBackup(out), newHubRestore(out))
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
			if err := errors.Join(o.checkExternal(), o.checkSites(), checkBackups(cmd, o.backups)); err != nil {
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
	f.StringArrayVar(&o.otherURLs, "other-url", nil, "https URL at which sites reach that port too, in join tokens after --public-url; may be given again")
	f.DurationVar(&o.credentialLife, "credential-life", enrollhub.DefaultTTL, "how long a site's credentials hold; it renews them at two thirds of that")
	f.StringArrayVar(&o.names, "name", nil, "DNS name or IP address for the certificates; may be given again")
	f.StringVar(&o.kubeAddr, "kube-addr", "127.0.0.1:6443", "address of the embedded Kubernetes API")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "use the API of this cluster and start none")
	o.identity.AddFlags(f)
	f.BoolVar(&o.inCluster, "in-cluster", false, "use the API of the cluster in which this runs as a pod, and start none")
	c.MarkFlagsMutuallyExclusive("kubeconfig", "in-cluster")
	f.StringVar(&o.natsListen, "nats-listen", "", "address of NATS' own TLS port, for hubs of many thousand sites")
	f.StringVar(&o.external.url, "nats-url", "", "use this NATS and start none; its port must be open to the hub alone; needs --nats-account and --nats-signing-key")
	f.StringVar(&o.external.account, "nats-account", "", "public key of the NATS account")
	f.StringVar(&o.external.signingKey, "nats-signing-key", "", "file with the seed of a signing key of that account")
	f.StringVar(&o.external.ca, "nats-ca", "", "file with the authority of that NATS' certificate in PEM (default: the machine's own)")
	f.StringVar(&o.adminAddr, "admin-addr", "127.0.0.1:0", "loopback address of health, metrics and profiles; empty for none")
	f.StringVar(&o.backups.Dir, "backup-dir", "", "back the hub up into this directory; its files hold every key of the hub")
	f.DurationVar(&o.backups.Every, "backup-every", 24*time.Hour, "time between two backups, counted over restarts")
	f.IntVar(&o.backups.Keep, "backup-keep", 7, "how many backups stay in that directory")
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

// Bounds of what sites are given.
const (
	minCredentialLife = 10 * time.Second
	maxCredentialLife = 7 * 24 * time.Hour
	maxOtherURLs      = 7 // a join token holds eight
)

// checkSites refuses addresses and credentials of which sites could make nothing.
func (o hubOptions) checkSites() error {
	if o.credentialLife < minCredentialLife || o.credentialLife > maxCredentialLife {
		return fmt.Errorf("--credential-life %s: want %s to %s", o.credentialLife, minCredentialLife, maxCredentialLife)
	}
	if len(o.otherURLs) > maxOtherURLs {
		return fmt.Errorf("--other-url is given %d times, want at most %d", len(o.otherURLs), maxOtherURLs)
	}
	for _, raw := range o.otherURLs {
		if u, err := url.Parse(raw); err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("--other-url %q: want https:// and a host, such as https://hub.example.com:7443", raw)
		}
	}
	return nil
}

// checkBackups refuses a schedule that cannot be kept.
func checkBackups(cmd *cobra.Command, s backup.Schedule) error {
	for _, name := range []string{"backup-every", "backup-keep"} {
		if s.Dir == "" && cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s belongs to --backup-dir", name)
		}
	}
	if s.Every < time.Second {
		return fmt.Errorf("--backup-every %s: want a second or more", s.Every)
	}
	if s.Keep < 1 {
		return fmt.Errorf("--backup-keep %d: want 1 or more", s.Keep)
	}
	return nil
}

const dataDirUsage = "data directory of the hub (default: $SKERRY_HOME, then $XDG_DATA_HOME/skerry; /var/lib/skerry for root)"

func newHubBackup(out io.Writer) *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save a hub into one file",
		Long: "Save a hub, running or stopped, into one file from which `skerry hub restore` makes the same hub to\n" +
			"the same sites. The file holds every key of the hub in the clear: keep it as you keep those. An older\n" +
			"FILE is replaced once the new one is whole.",
		Example: "  skerry hub backup --data-dir /var/lib/skerry-hub /backup/hub.tar.gz",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := dirs.Data(dataDir)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
			m, err := backup.Save(cmd.Context(), backup.Options{DataDir: dir, Version: version(), Log: log}, args[0])
			if err != nil {
				return err
			}
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "hub %s saved to %s (%d KiB)\n", m.URL, args[0], info.Size()>>10)
			return nil
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", dataDirUsage)
	return c
}

func newHubRestore(out io.Writer) *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a hub from a backup",
		Long: "Make a hub's data directory from a file of `skerry hub backup`. The directory must be empty or not there.\n" +
			"Then run the hub where its sites look for it. They are told everything anew, as of the backup; what\n" +
			"joined, was revoked or was applied since is not known.",
		Example: "  skerry hub restore --data-dir /var/lib/skerry-hub /backup/hub.tar.gz",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := dirs.Data(dataDir)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
			m, err := backup.Restore(args[0], dir, log)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "hub of %s restored to %s; its sites look for it at %s\n", m.Time.Format(time.RFC3339), dir, m.URL)
			return nil
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", dataDirUsage)
	return c
}
