package cli

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/app"
)

func newLogs(g *globals) *cobra.Command {
	var site string
	var follow bool
	var tail int
	c := &cobra.Command{
		Use:   "logs app/NAME",
		Short: "Show what an app prints at a site",
		Long: "Show what an app prints at a site. Each line begins with the time by the site's clock, the stream\n" +
			"(out or err) and the release. --site may be left out when the app runs on one site only.",
		Example: "  skerry logs app/hello --site shop-2\n  skerry logs app/hello --site shop-2 -f --tail 10",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := g.appKey(args[0])
			if err != nil {
				return err
			}
			hub, err := g.hub(cmd.Context())
			if err != nil {
				return err
			}
			path := strings.NewReplacer("{namespace}", key.Namespace, "{app}", key.Name).Replace(app.PathLogs)
			query := url.Values{"site": {site}, "tail": {strconv.Itoa(tail)}, "follow": {strconv.FormatBool(follow)}}
			err = hub.Stream(cmd.Context(), path, query, g.streams.Out)
			if cmd.Context().Err() != nil {
				return nil // Ctrl-C is how a follow ends
			}
			return err
		},
	}
	c.Flags().StringVar(&site, "site", "", "site whose log to show")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with lines as they come, until Ctrl-C")
	c.Flags().IntVar(&tail, "tail", 100, "how many of the last lines to begin with; -1 for all that is kept")
	return c
}
