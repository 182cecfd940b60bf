// Command skerry is everything: the hub, a site's agent, and the command line for people.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // a box may have none of its own

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/skerry-dev/skerry/cmd/internal/agent"
	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/cmd/internal/docs"
	"github.com/skerry-dev/skerry/cmd/internal/service"
	"github.com/skerry-dev/skerry/internal/cli"
	"github.com/skerry-dev/skerry/internal/sitecli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	// Kubernetes' libraries put flags of their own into the process-wide set, which cobra adds to every
	// command; one of them is a --version that breaks ours.
	pflag.CommandLine = pflag.NewFlagSet(os.Args[0], pflag.ContinueOnError)
	os.Exit(cli.Main(ctx, root(), os.Stderr))
}

func root() *cobra.Command {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	siteCommands := sitecli.Commands(sitecli.Deps{
		Run: func(ctx context.Context, o sitecli.RunOptions) error {
			return agent.Run(ctx, version(), os.Stderr, o)
		},
		DataDir: dirs.Data,
		Joined:  agent.Joined,
		Root:    "/",
		Out:     os.Stdout,
	})
	siteCommands = append(siteCommands, service.SiteCommands(service.Options{
		Program: "skerry", Prefix: []string{"site"}, Out: os.Stdout,
		Join: func(ctx context.Context, o sitecli.RunOptions) error { return agent.Join(ctx, version(), os.Stderr, o) },
	})...)
	siteCommands = append(siteCommands, agent.SuperviseCommand("site"))
	c := cli.New(version(), streams, cli.Starters{
		Commands:     []*cobra.Command{newUp(os.Stdout, os.Stderr), newDown(os.Stdout)},
		Hub:          newHub(os.Stdout),
		SiteCommands: siteCommands,
	})
	c.AddCommand(docs.Command(root))
	return c
}

// version is that of the module, or of the commit that it was built from.
func version() string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := build.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range build.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// levelOf reads a log level.
func levelOf(name string) (slog.Level, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(name))
	return level, err
}
