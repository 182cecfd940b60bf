// Package hubca is `skerry hub ca`: the steps by which one authority of the hub takes the place of another. Only package
// cli imports it.
package hubca

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/enroll"
)

// Deps are what package cli hands in.
type Deps struct {
	// Hub finds the hub.
	Hub func(context.Context) (*hubclient.Client, error)
	// GroupRun is the RunE of a command that only holds others.
	GroupRun func(*cobra.Command, []string) error
	Out      io.Writer
}

// New returns the command.
func New(d Deps) *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "Replace the authority that sites trust, without cutting them off",
		Long: "Replace the hub's certificate authority in four steps, each of which may wait for months: add a second one,\n" +
			"wait until sites know it, use it, and drop the first. The hub runs all the while. A step that would cut a\n" +
			"site off is refused with its name.",
		Example: "  skerry hub ca add\n  skerry hub ca list      # until all sites know the next one\n  skerry hub ca use\n  skerry hub ca drop",
		Args:    cobra.ArbitraryArgs,
		RunE:    d.GroupRun,
	}
	c.AddCommand(newList(d),
		newStep(d, enroll.StepAdd, "Make a second authority, which sites learn and nothing uses yet",
			"Make a second authority beside the one in use. Connected sites learn it within a minute, others when they come\n"+
				"back. Join tokens and claim codes made from now on work before and after `use`; those made earlier end with it.", false),
		newStep(d, enroll.StepUse, "Serve and sign with the next authority",
			"Serve and sign with the next authority from now on. Refused with their names while sites do not know it;\n"+
				"--force cuts these off, and they have to join anew.", true),
		newStep(d, enroll.StepDrop, "Forget the previous authority, or the next one before it is used",
			"Forget the authority that is not in use. Refused with their names while sites may show a certificate of it.", true))
	return c
}

func newList(d Deps) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "Show the authorities, and which sites know them",
		Example: "  skerry hub ca list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hub, err := d.Hub(cmd.Context())
			if err != nil {
				return err
			}
			var answer enroll.AuthoritiesAnswer
			if err := hub.Get(cmd.Context(), enroll.PathAuthorities, nil, &answer); err != nil {
				return err
			}
			return print(d.Out, answer.Authorities)
		},
	}
}

func newStep(d Deps, step, short, long string, forcible bool) *cobra.Command {
	request := enroll.AuthorityStep{Step: step}
	c := &cobra.Command{
		Use: step, Short: short, Long: long, Example: "  skerry hub ca " + step, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hub, err := d.Hub(cmd.Context())
			if err != nil {
				return err
			}
			var answer enroll.AuthoritiesAnswer
			if err := hub.Post(cmd.Context(), enroll.PathAuthorities, request, &answer); err != nil {
				return err
			}
			if len(answer.CutOff) > 0 {
				fmt.Fprintf(d.Out, "cut off: %s\n", strings.Join(answer.CutOff, ", "))
			}
			return print(d.Out, answer.Authorities)
		},
	}
	if forcible {
		c.Flags().BoolVar(&request.Force, "force", false, "take the step although it cuts sites off")
	}
	return c
}

// shownDigits of a digest tell authorities apart for people.
const shownDigits = 16

func print(out io.Writer, list []enroll.Authority) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "AUTHORITY\tSTATE\tMADE\tENDS\tKNOWN BY\tSIGNED FOR")
	day := func(s int64) string { return time.Unix(s, 0).UTC().Format(time.DateOnly) }
	for _, a := range list {
		fmt.Fprintf(w, "%.*s\t%s\t%s\t%s\t%d of %d sites\t%d\n", shownDigits, a.Digest, a.State, day(a.NotBefore), day(a.NotAfter),
			len(a.Known), len(a.Known)+len(a.Unknown), len(a.Signed))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, a := range list {
		if a.State == enroll.AuthorityNext && len(a.Unknown) > 0 {
			if _, err := fmt.Fprintf(out, "\nDo not know the next one yet: %s\n", strings.Join(a.Unknown, ", ")); err != nil {
				return err
			}
		}
	}
	return nil
}
