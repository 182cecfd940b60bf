package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/sitecli"
	"github.com/skerry-dev/skerry/internal/upkeep/slots"
)

// Options are what the commands of a service share.
type Options struct {
	// Program is the binary and Prefix the words before "run", as ["site"] for skerry.
	Program string
	Prefix  []string
	// Join makes this machine a member of its site, in the data directory of o, and keeps nothing running.
	Join func(ctx context.Context, o sitecli.RunOptions) error
	Out  io.Writer
}

const (
	siteUnit = "skerry-site"
	siteDir  = "/var/lib/skerry-site"
	hubUnit  = "skerry-hub"
	hubDir   = "/var/lib/skerry-hub"
)

func (o Options) site(root, dir string, args []string) Service {
	return Service{
		Name: siteUnit, Program: o.Program, Description: "Skerry site agent", Root: root, Out: o.Out, Start: true,
		// Apps have users of their own, which must pass through to their files.
		DataDir: dir, DataMode: 0o711, Delegate: true,
		Args: append(append(append([]string{}, o.Prefix...), "supervise", "--data-dir", dir, "--"), args...),
	}
}

// SiteCommands returns install and uninstall of a site's agent.
func SiteCommands(o Options) []*cobra.Command {
	var dir, root, token, ca string
	install := &cobra.Command{
		Use:   "install [-- FLAGS OF run]",
		Short: "Make this machine a site, as a service that starts at each boot",
		Long: "Join the site that the token is for, put this program into /usr/local/bin, and make it a systemd service.\n" +
			"Nothing is installed when the hub refuses the token. What comes after -- are flags of `run`, as for the\n" +
			"gateway's address. Say it again, without a token, to change them or to install another version.",
		Example: "  skerry-site install --join skj1.…\n  skerry-site install --join skj1.… -- --gateway-addr 0.0.0.0:443 --gateway-name shop.example.com",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRunFlags(args); err != nil {
				return err
			}
			if token == "" {
				token = os.Getenv(sitecli.TokenEnv)
			}
			s := o.site(root, dir, args)
			if ca != "" {
				s.Args = append(s.Args, "--ca-file", ca)
			}
			if token != "" {
				run := sitecli.RunOptions{DataDir: s.at(dir), Join: token, CAFile: ca, GatewayAddr: "127.0.0.1:8080", LogLevel: "warn"}
				if err := o.Join(cmd.Context(), run); err != nil {
					return fmt.Errorf("join: %w", err)
				}
				fmt.Fprintln(o.Out, "joined")
			}
			// What is installed now runs, and not what the hub upgraded an earlier one to.
			if err := slots.Reset(s.at(dir)); err != nil {
				return err
			}
			return s.Install(cmd.Context())
		},
	}
	var purge bool
	uninstall := &cobra.Command{
		Use:     "uninstall",
		Short:   "Take the service away; the site's data stays unless --purge",
		Example: "  skerry-site uninstall\n  skerry-site uninstall --purge",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.site(root, dir, nil).Uninstall(cmd.Context(), purge)
		},
	}
	for _, c := range []*cobra.Command{install, uninstall} {
		addPlace(c, &dir, siteDir, &root)
	}
	install.Flags().StringVar(&token, "join", "", "join token; needed once")
	install.Flags().StringVar(&ca, "ca-file", "", "more authorities (PEM) to trust for the hub's public name or a proxy")
	uninstall.Flags().BoolVar(&purge, "purge", false, "remove the site's data and identity too")
	return []*cobra.Command{install, uninstall}
}

// checkRunFlags refuses what install says itself.
func checkRunFlags(args []string) error {
	for _, arg := range args {
		for _, own := range []string{"--data-dir", "--join"} {
			if arg == own || strings.HasPrefix(arg, own+"=") {
				return fmt.Errorf("%s: say it before --", own)
			}
		}
	}
	return nil
}

func addPlace(c *cobra.Command, dir *string, standard string, root *string) {
	c.Flags().StringVar(dir, "data-dir", standard, "where the service keeps everything")
	c.Flags().StringVar(root, "root", "", "install into the root of an image instead of this machine")
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !filepath.IsAbs(*dir) {
			return errors.New("--data-dir: must be absolute")
		}
		return run(cmd, args)
	}
}

// HubCommands returns install and uninstall of a hub.
func HubCommands(o Options) []*cobra.Command {
	var dir, root string
	hub := func(args []string) Service {
		return Service{
			Name: hubUnit, Program: o.Program, Description: "Skerry hub", Root: root, Out: o.Out, Start: true,
			DataDir: dir, DataMode: 0o700, Confine: true, Args: append([]string{"hub", "run", "--data-dir", dir}, args...),
		}
	}
	install := &cobra.Command{
		Use:   "install [-- FLAGS OF run]",
		Short: "Make this machine a hub, as a service that starts at each boot",
		Long: "Put this program into /usr/local/bin and make `skerry hub run` a systemd service. What comes after -- are\n" +
			"flags of `run`: sites on other machines need at least --addr, --name and --public-url.",
		Example: "  skerry hub install -- --addr 0.0.0.0:7443 --name hub.example.com --public-url https://hub.example.com:7443",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRunFlags(args); err != nil {
				return err
			}
			return hub(args).Install(cmd.Context())
		},
	}
	var purge bool
	uninstall := &cobra.Command{
		Use:     "uninstall",
		Short:   "Take the service away; the hub's data stays unless --purge",
		Example: "  skerry hub uninstall",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return hub(nil).Uninstall(cmd.Context(), purge) },
	}
	for _, c := range []*cobra.Command{install, uninstall} {
		addPlace(c, &dir, hubDir, &root)
	}
	uninstall.Flags().BoolVar(&purge, "purge", false, "remove everything that the hub knows, for good")
	return []*cobra.Command{install, uninstall}
}
