package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/bundle"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func newApp(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:     "app",
		Short:   "Begin a new app",
		Example: "  skerry app init hello",
		Args:    cobra.ArbitraryArgs,
		RunE:    GroupRun,
	}
	c.AddCommand(newAppInit(g))
	return c
}

func newAppInit(g *globals) *cobra.Command {
	var runtime string
	c := &cobra.Command{
		Use:   "init NAME",
		Short: "Lay out the directory of a new app",
		Long: "Lay out the directory NAME of a new app: a small HTTP app in Go that the stock toolchain builds,\n" +
			"bundle.yaml, which says how it is built and run, and app.yaml, which says where. NAME may be a\n" +
			"path; its last part is the app's name. Files that exist are never overwritten.\n\n" +
			"--runtime wasm makes it a WebAssembly module, which runs at sites of every machine and is held\n" +
			"within its limits; process, the default, makes it a program.",
		Example: "  skerry app init hello && cd hello\n  skerry push . --version 1.0.0\n  skerry apply -f app.yaml\n" +
			"  skerry app init prices --runtime wasm",
		Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := filepath.Base(args[0])
			if err := (fleet.AppKey{Namespace: "default", Name: name}).Validate(); err != nil {
				return Usage(err)
			}
			files, err := bundle.Scaffold(args[0], name, runtime)
			if err != nil {
				return err
			}
			for _, f := range files {
				fmt.Fprintf(g.streams.Out, "%s\n", filepath.Join(args[0], f))
			}
			fmt.Fprintf(g.streams.ErrOut, "\nNext: cd %s && skerry push . --version 1.0.0 && skerry apply -f app.yaml\n", args[0])
			return nil
		},
	}
	c.Flags().StringVar(&runtime, "runtime", app.RuntimeProcess, "what runs it: process or wasm")
	return c
}
