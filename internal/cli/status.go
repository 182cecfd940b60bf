package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// watchEvery is how often a followed status is asked for.
const watchEvery = time.Second

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func newStatus(g *globals) *cobra.Command {
	var output string
	var watch bool
	c := &cobra.Command{
		Use:   "status app/NAME",
		Short: "Show where an app stands at each of its sites",
		Long: "Show where an app stands at each of its sites: the release meant for the site, its state,\n" +
			"whether it answers healthily, and since when. Exits 0 whether or not the app is healthy.",
		Example: "  skerry status app/hello\n  skerry status app/hello -w          # follow until Ctrl-C\n  skerry status app/hello -o json",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			print, err := statusPrinter(output)
			if err != nil {
				return err
			}
			key, err := g.appKey(args[0])
			if err != nil {
				return err
			}
			return followStatus(cmd.Context(), g, key, watch, print)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "table", "table, wide, json or yaml")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "print again whenever something changes")
	return c
}

// appKey reads "app/NAME" or "NAME".
func (g *globals) appKey(arg string) (fleet.AppKey, error) {
	name := arg
	if kind, rest, ok := strings.Cut(arg, "/"); ok {
		if kind != "app" && kind != "apps" {
			return fleet.AppKey{}, Usage(fmt.Errorf("%q: want app/NAME", arg))
		}
		name = rest
	}
	ns, err := g.namespace()
	if err != nil {
		return fleet.AppKey{}, err
	}
	key := fleet.AppKey{Namespace: ns, Name: name}
	return key, Usage(key.Validate())
}

// statusPrinter returns what prints a status in the form that a person asked for.
func statusPrinter(output string) (func(io.Writer, app.StatusView) error, error) {
	switch output {
	case "table", "wide":
		return func(w io.Writer, v app.StatusView) error { return printStatus(w, v, output == "wide") }, nil
	case "json":
		return func(w io.Writer, v app.StatusView) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(v)
		}, nil
	case "yaml":
		return func(w io.Writer, v app.StatusView) error {
			data, err := yaml.Marshal(v)
			if err != nil {
				return fmt.Errorf("encode status: %w", err)
			}
			_, err = fmt.Fprintf(w, "---\n%s", data)
			return err
		}, nil
	}
	return nil, Usage(fmt.Errorf("-o %q: want table, wide, json or yaml", output))
}

func followStatus(ctx context.Context, g *globals, key fleet.AppKey, watch bool, print func(io.Writer, app.StatusView) error) error {
	hub, err := g.hub(ctx)
	if err != nil {
		return err
	}
	path := strings.NewReplacer("{namespace}", key.Namespace, "{app}", key.Name).Replace(app.PathStatus)
	last := ""
	for {
		var view app.StatusView
		if err := hub.Get(ctx, path, nil, &view); err != nil {
			if watch && last != "" && ctx.Err() != nil {
				return nil // Ctrl-C is how a watch ends
			}
			return err
		}
		if shown := fingerprint(view); shown != last {
			if last != "" && watch {
				fmt.Fprintln(g.streams.Out)
			}
			if err := print(g.streams.Out, view); err != nil {
				return err
			}
			last = shown
		}
		if !watch {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// fingerprint is what has to differ for a followed status to be printed again: not the counts and times
// that change all the while.
func fingerprint(v app.StatusView) string {
	var b strings.Builder
	fmt.Fprint(&b, v.Release, v.Ready, v.Message)
	for _, s := range v.Sites {
		fmt.Fprint(&b, s.Site, s.Link, s.Standing, s.Desired, s.Running, s.Phase, s.Message, s.Restarts)
	}
	return b.String()
}

func printStatus(out io.Writer, v app.StatusView, wide bool) error {
	state := map[string]string{"True": "ready", "False": "not ready"}[v.Ready]
	if state == "" {
		state = "unknown"
	}
	fmt.Fprintf(out, "app/%s  %s  %s: %s\n\n", v.App.Name, orDash(v.Version), state, plain(cmp.Or(v.Message, "the hub has said nothing of it yet")))
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	header := "SITE\tRELEASE\tSTATE\tHEALTHY\tSINCE\tURL"
	if wide {
		header += "\tRUNNING\tRESTARTS\tREQUESTS\tERRORS\tLINK\tMESSAGE"
	}
	fmt.Fprintln(w, header)
	for _, s := range v.Sites {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s", s.Site, releaseLabel(s.Desired), stateOf(s), yesNo(s.Healthy), since(s.Since), orDash(plain(s.URL)))
		if wide {
			fmt.Fprintf(w, "\t%s\t%d\t%d\t%d\t%s\t%s", releaseLabel(s.Running), s.Restarts, s.Counts.Requests, s.Counts.Errors, s.Link, orDash(plain(s.Message)))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	if wide {
		printConditions(out, v)
	} else {
		printMessages(out, v)
	}
	return nil
}

// printMessages says below the table what its columns cannot hold.
func printMessages(out io.Writer, v app.StatusView) {
	first := true
	for _, s := range v.Sites {
		if s.Message == "" || s.Healthy {
			continue
		}
		if first {
			fmt.Fprintln(out)
			first = false
		}
		fmt.Fprintf(out, "%s: %s\n", s.Site, plain(s.Message))
	}
}

// printConditions says below the wide table what sites remark on, whether healthy or not.
func printConditions(out io.Writer, v app.StatusView) {
	first := true
	for _, s := range v.Sites {
		for _, reason := range sortedKeys(s.Conditions) {
			if first {
				fmt.Fprintln(out)
				first = false
			}
			fmt.Fprintf(out, "%s: %s: %s\n", s.Site, plain(reason), plain(s.Conditions[reason]))
		}
	}
}

func stateOf(s app.SiteStatus) string {
	if s.Link == fleet.LinkAway {
		return string(s.Phase) + " (away)"
	}
	return string(s.Phase)
}

func releaseLabel(r app.ReleaseRef) string {
	return orDash(plain(cmp.Or(r.Version, r.Release)))
}

// plain makes one line of what a site said: whoever runs a site must not write to a person's terminal what
// moves the cursor, or looks like another site's line.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func since(unix int64) string {
	if unix == 0 {
		return "-"
	}
	return duration.HumanDuration(max(0, time.Since(time.Unix(unix, 0))))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// exactArgs is cobra's, with an error that is marked as one of usage.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return Hint(Usage(fmt.Errorf("%d arguments are given, %d wanted: %s", len(args), n, cmd.UseLine())), "see `%s --help`", cmd.CommandPath())
	}
}
