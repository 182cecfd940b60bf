package sitecli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/site"
)

func newFingerprint(d Deps) *cobra.Command {
	return &cobra.Command{
		Use:   "fingerprint",
		Short: "Show by what the hub tells this machine from others",
		Long: "Show this machine's fingerprint, 32 digits, to which a site or a join token can be bound. It is made of\n" +
			"a serial number of the hardware; run it as the user that runs the agent, root as a rule, because\n" +
			"some of them are for root alone to read. It is not a secret.",
		Example: "  skerry-site fingerprint",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			fingerprint, _, err := site.Fingerprint(os.DirFS("/"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(d.Out, fingerprint)
			return err
		},
	}
}
