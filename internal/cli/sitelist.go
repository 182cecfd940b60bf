package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

func newSiteList(g *globals) *cobra.Command {
	var output, selector string
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List sites with their link, members and address",
		Example: "  skerry site list\n  skerry site list -l kind=shop -o wide\n  skerry site list -o json",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			print, err := sitePrinter(output)
			if err != nil {
				return err
			}
			chosen, err := labels.Parse(selector)
			if err != nil {
				return Usage(fmt.Errorf("-l %q: %w", selector, err))
			}
			c, err := g.objects()
			if err != nil {
				return err
			}
			var sites v1alpha1.SiteList
			if err := c.List(cmd.Context(), &sites, client.MatchingLabelsSelector{Selector: chosen}); err != nil {
				return fmt.Errorf("list sites: %w", err)
			}
			return print(g.streams.Out, &sites)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "table", "table, wide, json, yaml or name")
	c.Flags().StringVarP(&selector, "selector", "l", "", "only sites with these labels, such as kind=shop,zone!=north")
	return c
}

// sitePrinter returns what prints sites in the form that a person asked for. JSON and YAML are the objects
// themselves, as kubectl prints them.
func sitePrinter(output string) (func(io.Writer, *v1alpha1.SiteList) error, error) {
	switch output {
	case "table", "wide":
		return func(w io.Writer, l *v1alpha1.SiteList) error { return printSites(w, l, output == "wide") }, nil
	case "name":
		return func(w io.Writer, l *v1alpha1.SiteList) error {
			for i := range l.Items {
				if _, err := fmt.Fprintf(w, "site.%s/%s\n", v1alpha1.Group, l.Items[i].Name); err != nil {
					return err
				}
			}
			return nil
		}, nil
	case "json", "yaml":
		return func(w io.Writer, l *v1alpha1.SiteList) error {
			l.SetGroupVersionKind(v1alpha1.SchemeGroupVersion().WithKind("SiteList"))
			for i := range l.Items {
				l.Items[i].ManagedFields = nil
				l.Items[i].SetGroupVersionKind(v1alpha1.SchemeGroupVersion().WithKind("Site"))
			}
			encode := yaml.Marshal
			if output == "json" {
				encode = func(v any) ([]byte, error) {
					data, err := json.MarshalIndent(v, "", "  ")
					return append(data, '\n'), err
				}
			}
			data, err := encode(l)
			if err != nil {
				return fmt.Errorf("encode sites: %w", err)
			}
			_, err = w.Write(data)
			return err
		}, nil
	}
	return nil, Usage(fmt.Errorf("-o %q: want table, wide, json, yaml or name", output))
}

func printSites(out io.Writer, sites *v1alpha1.SiteList, wide bool) error {
	if len(sites.Items) == 0 {
		_, err := fmt.Fprintln(out, "No sites. Let a machine join with `skerry site token NAME`.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	header := "NAME\tLINK\tMEMBERS\tVERSION\tURL\tLABELS"
	if wide {
		header += "\tZONE\tMACHINE\tMESSAGE"
	}
	fmt.Fprintln(w, header)
	silent := map[string]int{}
	for i := range sites.Items {
		s := &sites.Items[i]
		link, message := "-", "-"
		if cond := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); cond != nil {
			link, message = cond.Reason, cond.Message
		}
		if away := s.Status.Away; away != nil {
			link += " (" + away.Belief + ")"
			if away.Zone != "" {
				silent[away.Zone]++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s", s.Name, link, members(s), orDash(s.Status.Version), orDash(s.Status.Gateway),
			metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: s.Labels}))
		if wide {
			h := s.Status.Hardware
			machine := strings.TrimSuffix(h.OS+"/"+h.Arch, "/")
			fmt.Fprintf(w, "\t%s\t%s\t%s", orDash(s.Spec.Zone), orDash(machine), orDash(message))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, zone := range slices.Sorted(maps.Keys(silent)) {
		if _, err := fmt.Fprintf(out, "Zone %s fell silent as a whole: %d of these sites are away with it.\n", zone, silent[zone]); err != nil {
			return err
		}
	}
	return nil
}

func members(s *v1alpha1.Site) string {
	var out []string
	for _, m := range s.Status.Members {
		if revoked(s, m.ID) {
			continue
		}
		out = append(out, m.ID)
	}
	return orDash(strings.Join(out, ","))
}
