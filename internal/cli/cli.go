// Package cli is the command line of skerry: a file a verb, a package a noun.
//
// It imports the cores and leaves of features, the API types and client-go. What starts a hub or a site is
// handed in by cmd, so that the command line can be tested without either. Commands return errors; only
// Main prints them, as one sentence and, where there is one, a hint.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/skerry-dev/skerry/internal/cli/checkcli"
	"github.com/skerry-dev/skerry/internal/cli/eventcli"
	"github.com/skerry-dev/skerry/internal/cli/hubca"
	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/cli/siteupgrade"
	"github.com/skerry-dev/skerry/internal/cli/taskcli"
)

// Exit codes of the command.
const (
	ExitOK      = 0
	ExitFailure = 1 // the command could not do what was asked
	ExitUsage   = 2 // a flag or argument cannot be used
)

// Starters start what runs for long. Each returns when ctx ends or it failed.
type Starters struct {
	// Commands are whole commands that cmd makes, such as up, down, hub and site run.
	Commands []*cobra.Command
	// Hub is the command "hub"; those that speak to a hub which runs are added to it.
	Hub *cobra.Command
	// SiteCommands belong below "site".
	SiteCommands []*cobra.Command
}

// hinted is an error with something the person can do.
type hinted struct {
	error
	hint string
}

// Unwrap lets errors.Is and errors.As see through the hint.
func (h hinted) Unwrap() error { return h.error }

// Hint says what the person can do.
func (h hinted) Hint() string { return h.hint }

// Hint adds to err what the person can do; nil stays nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// usageError marks an error as one of the person's own command line.
type usageError struct{ error }

// Unwrap lets errors.Is and errors.As see the cause.
func (u usageError) Unwrap() error { return u.error }

// Usage marks err as one of the person's own command line.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Main runs root with the process' arguments and returns the exit code.
func Main(ctx context.Context, root *cobra.Command, stderr io.Writer) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return ExitFailure
	}
	fmt.Fprintf(stderr, "Error: %s\n", strings.TrimSpace(err.Error()))
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(stderr, "Hint: %s\n", h.Hint())
	} else if errors.Is(err, hubclient.ErrNoHub) {
		fmt.Fprintln(stderr, "Hint: is KUBECONFIG set as `skerry up` printed it, and does the hub run?")
	}
	var u usageError
	if errors.As(err, &u) {
		return ExitUsage
	}
	return ExitFailure
}

// New returns the root command.
func New(version string, streams genericiooptions.IOStreams, s Starters) *cobra.Command {
	root := &cobra.Command{
		Use:   "skerry",
		Short: "Run a thousand small sites like one cluster",
		Long: "Skerry runs apps at many small sites, keeps them running when the network is gone,\n" +
			"and shows and steers all of it through Kubernetes objects.",
		Example: "  skerry up                      # a hub, three sites and an app on this machine\n" +
			"  skerry get sites               # like kubectl\n" +
			"  skerry status app/hello        # where an app stands, site by site",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE:          GroupRun,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Hint(Usage(err), "see `%s --help`", cmd.CommandPath())
	})
	flags := genericclioptions.NewConfigFlags(true)
	g := &globals{flags: flags, streams: streams, version: version}
	groups := []*cobra.Group{
		{ID: groupStart, Title: "Start and stop:"},
		{ID: groupApps, Title: "Apps:"},
		{ID: groupFleet, Title: "The fleet:"},
		{ID: groupUpgrades, Title: "Before an upgrade, without a hub:"},
		{ID: groupObjects, Title: "Objects, as with kubectl:"},
	}
	root.AddGroup(groups...)
	for _, c := range s.Commands {
		c.GroupID = groupStart
		root.AddCommand(c)
	}
	if s.Hub != nil {
		ca := hubca.New(hubca.Deps{Hub: g.hub, GroupRun: GroupRun, Out: streams.Out})
		addConnectionFlags(ca, flags)
		s.Hub.AddCommand(ca)
		s.Hub.GroupID = groupStart
		root.AddCommand(s.Hub)
	}
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			addConnectionFlags(c, flags)
			root.AddCommand(c)
		}
	}
	tasks := taskcli.New(taskcli.Deps{
		Streams: streams, Hub: g.hub, Objects: g.objects, Namespace: g.namespace, Usage: Usage, Hint: Hint, Group: GroupRun,
	})
	add(groupApps, newApp(g), newPush(g), newStatus(g), newLogs(g), newWhy(g), newRender(g), tasks)
	events := eventcli.New(eventcli.Env{Hub: g.hub, Namespace: flags.Namespace, DefaultNamespace: g.namespace, Out: streams.Out, Usage: Usage})
	add(groupFleet, newSite(g, append(s.SiteCommands, siteupgrade.New(siteupgrade.Deps{Hub: g.hub, Objects: g.objects, Usage: Usage, Out: streams.Out}))), events, newUser(g))
	add(groupObjects, objectCommands(g)...)
	checks := checkcli.New(checkcli.Env{In: streams.In, Out: streams.Out, Version: version, Usage: Usage})
	checks.GroupID = groupUpgrades
	root.AddCommand(checks, newVersion(g))
	markUsage(root)
	return root
}

// markUsage makes every error about arguments one of usage, whoever made the command.
func markUsage(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error { return Usage(check(cmd, args)) }
	}
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
}

// GroupRun is the RunE of a command that only holds others (with cobra.ArbitraryArgs): it prints the help, or
// says which word is no command.
func GroupRun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	err := Usage(fmt.Errorf("%q is no command of %s", args[0], cmd.CommandPath()))
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		return Hint(err, "did you mean `%s %s`?", cmd.CommandPath(), similar[0])
	}
	return Hint(err, "see `%s --help`", cmd.CommandPath())
}

// Groups of commands in the help text.
const (
	groupStart    = "start"
	groupApps     = "apps"
	groupFleet    = "fleet"
	groupObjects  = "objects"
	groupUpgrades = "upgrades"
)

// globals are what every command is given.
type globals struct {
	flags   *genericclioptions.ConfigFlags
	streams genericiooptions.IOStreams
	version string
}

// hub finds the hub of the Kubernetes API that the flags and KUBECONFIG name.
func (g *globals) hub(ctx context.Context) (*hubclient.Client, error) {
	config, err := g.flags.ToRESTConfig()
	if err != nil {
		return nil, Hint(fmt.Errorf("find the Kubernetes API: %w", err), "set KUBECONFIG as `skerry up` printed it")
	}
	return hubclient.New(ctx, config)
}

// namespace returns the one that the flags or the kubeconfig name.
func (g *globals) namespace() (string, error) {
	ns, _, err := g.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("read kubeconfig: %w", err)
	}
	return ns, nil
}

// addConnectionFlags adds the few of kubectl's flags that say which API is meant.
func addConnectionFlags(c *cobra.Command, flags *genericclioptions.ConfigFlags) {
	f := c.PersistentFlags()
	f.StringVar(flags.KubeConfig, "kubeconfig", *flags.KubeConfig, "kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)")
	f.StringVar(flags.Context, "context", *flags.Context, "context of the kubeconfig to use")
	f.StringVarP(flags.Namespace, "namespace", "n", *flags.Namespace, "namespace (default: that of the context)")
}

// colored reports whether out may be coloured: a terminal, and the person did not say NO_COLOR.
func colored(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && isTerminal(f)
}
