package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/site"
)

func newDown(out io.Writer) *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:     "down",
		Short:   "Stop all that an `up` left running",
		Long:    "Stop the hub and the sites of a data directory, whoever started them. Nothing is removed: the next\n`skerry up` continues where they were.",
		Example: "  skerry down",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dirs.Data(dataDir)
			if err != nil {
				return err
			}
			return runDown(cmd.Context(), dir, out)
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", "where everything is kept (default: $SKERRY_HOME, then $XDG_DATA_HOME/skerry; /var/lib/skerry for root)")
	return c
}

func runDown(ctx context.Context, dir string, out io.Writer) error {
	// An `up` stops its sites itself, and would start again those that it sees die.
	pid := dirs.Holder(dir, "hub")
	if pid != 0 {
		if err := endProcess(ctx, pid); err != nil {
			return err
		}
		fmt.Fprintln(out, "hub stopped")
	}
	matches, err := filepath.Glob(filepath.Join(dir, "sites", "*"))
	if err != nil {
		return fmt.Errorf("find sites: %w", err)
	}
	var sites []localSite
	for _, m := range matches {
		s := localSite{name: filepath.Base(m), dir: m}
		if _, err := s.status(ctx); !errors.Is(err, site.ErrNoAgent) {
			sites = append(sites, s)
		}
	}
	err = stopAll(ctx, sites)
	for _, s := range sites {
		fmt.Fprintf(out, "%s stopped\n", s.name)
	}
	if pid == 0 && len(sites) == 0 {
		fmt.Fprintf(out, "nothing runs in %s\n", dir)
	}
	return err
}
