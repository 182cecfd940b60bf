// Package eventcli is the verb "events" of the command line: what happened at the sites, as the hub collected it.
//
// Only package cli imports it. Its errors are the hub's (package hubclient), or of usage, marked by Env.Usage.
package eventcli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/event"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Env is what the verb needs of the command line around it.
type Env struct {
	// Hub finds the hub.
	Hub func(context.Context) (*hubclient.Client, error)
	// Namespace is the one that a flag names, empty when none does; DefaultNamespace that of the kubeconfig.
	Namespace        *string
	DefaultNamespace func() (string, error)
	Out              io.Writer
	// Usage marks an error as one of the person's own command line.
	Usage func(error) error
}

type options struct {
	site, app, output string
	classes           []string
	limit             int
	watch             bool
}

// New returns the verb.
func New(env Env) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened at the sites",
		Long: "Show what happened at the sites: apps that started, failed or crashed, links that came and went,\n" +
			"agents that were killed. Sites keep events on their own disk while the hub is away; each arrives\n" +
			"once and in order, and what a site had no room for is shown as a gap. Times are by the site's clock.\n\n" +
			"With -n or --app only events of apps are shown; they need the right to list apps of that namespace.",
		Example: "  skerry events\n  skerry events --site shop-2 -w\n  skerry events --app hello --class alarm\n" +
			"  skerry events --class sample -o json | jq .data",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			print, err := printer(o.output, time.Local)
			if err != nil {
				return env.Usage(err)
			}
			query, err := o.query(env)
			if err != nil {
				return env.Usage(err)
			}
			hub, err := env.Hub(cmd.Context())
			if err != nil {
				return err
			}
			return run(cmd.Context(), hub, query, env.Out, print)
		},
	}
	c.Flags().StringVar(&o.site, "site", "", "only events of this site, as far back as the hub keeps them")
	c.Flags().StringVar(&o.app, "app", "", "only events of this app")
	c.Flags().StringSliceVar(&o.classes, "class", nil, "only events of these classes: alarm, event, sample (default: all but samples)")
	c.Flags().IntVar(&o.limit, "limit", event.DefaultLimit, "how many of the newest to begin with")
	c.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on with events as they come, until Ctrl-C")
	c.Flags().StringVarP(&o.output, "output", "o", "table", "table, or json: one object a line")
	return c
}

func (o options) query(env Env) (url.Values, error) {
	q := url.Values{event.QueryLimit: {strconv.Itoa(o.limit)}, event.QueryFollow: {strconv.FormatBool(o.watch)}}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	namespace := *env.Namespace
	if o.app != "" && namespace == "" {
		var err error
		if namespace, err = env.DefaultNamespace(); err != nil {
			return nil, err
		}
	}
	set(event.QueryNamespace, namespace)
	set(event.QueryApp, strings.TrimPrefix(o.app, "app/"))
	set(event.QuerySite, strings.TrimPrefix(o.site, "site/"))
	for _, c := range o.classes {
		if !slices.Contains(fleet.EventClasses(), fleet.EventClass(c)) {
			return nil, fmt.Errorf("--class %q: want some of alarm, event and sample", c)
		}
		q.Add(event.QueryClass, c)
	}
	if o.limit < 0 || o.limit > event.MaxLimit {
		return nil, fmt.Errorf("--limit %d: want a number up to %d", o.limit, event.MaxLimit)
	}
	return q, nil
}

// run prints the hub's answer as it comes.
func run(ctx context.Context, hub *hubclient.Client, query url.Values, out io.Writer, print func(io.Writer, []event.Entry) error) error {
	r, w := io.Pipe()
	streamed := make(chan error, 1)
	go func() {
		err := hub.Stream(ctx, event.Path, query, w)
		streamed <- err
		w.CloseWithError(err)
	}()
	err := show(r, out, print)
	_ = r.CloseWithError(err)
	if broken := <-streamed; err == nil || errors.Is(err, broken) {
		err = broken
	}
	if ctx.Err() != nil {
		return nil // Ctrl-C is how a watch ends
	}
	return err
}

// maxLine bounds one entry as it travels.
const maxLine = 64 << 10

// show prints entries, those that came together at once.
func show(r io.Reader, out io.Writer, print func(io.Writer, []event.Entry) error) error {
	in := bufio.NewReaderSize(r, maxLine)
	var together []event.Entry
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return print(out, together)
		}
		if err != nil {
			return errors.Join(print(out, together), err)
		}
		var e event.Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("the hub's answer cannot be read: are hub and command of the same release? %w", err)
		}
		together = append(together, e)
		if in.Buffered() == 0 {
			if err := print(out, together); err != nil {
				return err
			}
			together = nil
		}
	}
}

// row has columns of fixed widths, so that what comes later stands below what came before.
const row = "%-19s  %-16s  %-6s  %-14s  %-24s  %s\n"

// printer returns what prints entries in the form that was asked for.
func printer(output string, zone *time.Location) (func(io.Writer, []event.Entry) error, error) {
	switch output {
	case "table":
		header := false
		return func(w io.Writer, entries []event.Entry) error {
			if len(entries) == 0 {
				return nil
			}
			if !header {
				header = true
				fmt.Fprintf(w, row, "TIME", "SITE", "CLASS", "REASON", "APP", "MESSAGE")
			}
			for _, e := range entries {
				if _, err := fmt.Fprintf(w, row, when(e, zone), e.Site, e.Class, e.Reason, about(e), said(e)); err != nil {
					return err
				}
			}
			return nil
		}, nil
	case "json":
		return func(w io.Writer, entries []event.Entry) error {
			out := json.NewEncoder(w)
			for _, e := range entries {
				if err := out.Encode(e); err != nil {
					return err
				}
			}
			return nil
		}, nil
	}
	return nil, fmt.Errorf("-o %q: want table or json", output)
}

func when(e event.Entry, zone *time.Location) string {
	if e.Time == 0 {
		return "-"
	}
	return time.UnixMilli(e.Time).In(zone).Format(time.DateTime)
}

func about(e event.Entry) string {
	if e.App == (fleet.AppKey{}) {
		return "-"
	}
	return e.App.String()
}

// said is the entry's text on one line, without what would steer a terminal: it comes from a site.
func said(e event.Entry) string {
	text := e.Message
	if len(e.Data) > 0 {
		text = strings.TrimSpace(text + " " + string(e.Data))
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}
