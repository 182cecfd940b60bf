// Command skerry-site is the agent of a box alone: apps and gateway, without Kubernetes and without a NATS
// server inside.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // a box may have none of its own

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/cmd/internal/agent"
	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/cmd/internal/service"
	"github.com/skerry-dev/skerry/internal/sitecli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %s\n", err)
		var h interface{ Hint() string }
		if errors.As(err, &h) && h.Hint() != "" {
			fmt.Fprintf(os.Stderr, "Hint: %s\n", h.Hint())
		}
		var u sitecli.UsageError
		if errors.As(err, &u) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "skerry-site",
		Short:         "The agent of one site",
		Version:       version(),
		Example:       "  skerry-site run --join skj1.… --data-dir /var/lib/skerry",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(sitecli.Commands(sitecli.Deps{
		Run: func(ctx context.Context, o sitecli.RunOptions) error {
			return agent.Run(ctx, version(), os.Stderr, o)
		},
		DataDir: dirs.Data,
		Joined:  agent.Joined,
		Root:    "/",
		Out:     os.Stdout,
	})...)
	c.AddCommand(service.SiteCommands(service.Options{
		Program: "skerry-site", Out: os.Stdout,
		Join: func(ctx context.Context, o sitecli.RunOptions) error { return agent.Join(ctx, version(), os.Stderr, o) },
	})...)
	c.AddCommand(agent.SuperviseCommand())
	sitecli.MarkUsage(c)
	return c
}

// release is the version of a release, set by -ldflags="-X main.release=…"; empty: that of the module.
var release string

func version() string {
	if release != "" {
		return release
	}
	if build, ok := debug.ReadBuildInfo(); ok && build.Main.Version != "" {
		return build.Main.Version
	}
	return "unknown"
}
