package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/upkeep/supervise"
)

// SuperviseCommand starts the agent and goes back to the one before when a new one is bad. prefix are the words of the
// installed program before "run", as ["site"] for skerry.
func SuperviseCommand(prefix ...string) *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "supervise [-- FLAGS OF run]",
		Short: "Run this machine's agent, and let the hub upgrade it",
		Long: "Start the agent of --data-dir: the one that the hub upgraded it to, else this program. A new agent that ends,\n" +
			"hangs, loses the hub or an app that was healthy is replaced by the one before. What comes after -- are flags\n" +
			"of `run`. The installed service runs this. It ends with the agent, which its service manager starts again.",
		Example: "  skerry-site supervise --data-dir /var/lib/skerry-site -- --gateway-addr 0.0.0.0:443",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := dirs.Data(dataDir)
			if err != nil {
				return err
			}
			if err := dirs.Make(dir); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			run := append([]string{"run", "--data-dir", dir}, args...)
			err = supervise.Run(cmd.Context(), supervise.Options{
				DataDir: dir, Base: self, BaseArgs: append(append([]string{}, prefix...), run...), Args: run,
				Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("component", "supervisor"),
			})
			var ended *exec.ExitError
			if errors.As(err, &ended) {
				return fmt.Errorf("the agent ended: %w", err)
			}
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", "where the agent keeps everything (default: $SKERRY_HOME, then $XDG_DATA_HOME/skerry; /var/lib/skerry for root)")
	return c
}
