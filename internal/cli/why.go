package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// How much of each source an answer quotes.
const (
	whyEvents = 5
	whySites  = 3
	whyLines  = 5
)

func addToScheme(s *runtime.Scheme) error {
	return errors.Join(v1alpha1.AddToScheme(s), corev1.AddToScheme(s), rbacv1.AddToScheme(s), authenticationv1.AddToScheme(s))
}

func newWhy(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "why app/NAME",
		Short: "Explain why an app is, or is not, as it should be",
		Long: "Explain why an app is, or is not, as it should be: its conditions, what its sites say, the newest\n" +
			"events, and the last lines that it printed at the first sites that fail.",
		Example: "  skerry why app/hello",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := g.appKey(args[0])
			if err != nil {
				return err
			}
			return g.why(cmd.Context(), key)
		},
	}
}

func (g *globals) why(ctx context.Context, key fleet.AppKey) error {
	c, err := g.objects()
	if err != nil {
		return err
	}
	var a v1alpha1.App
	if err := c.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, &a); err != nil {
		return fmt.Errorf("read app: %w", err)
	}
	out := g.streams.Out
	ready := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		fmt.Fprintf(out, "app/%s is new: the hub has said nothing of it yet. Does a hub run?\n", key.Name)
		return nil
	case ready.ObservedGeneration != a.Generation:
		fmt.Fprintf(out, "app/%s was changed; what follows is of the spec before.\n", key.Name)
	}
	verdict := map[bool]string{true: "ready", false: "not ready"}[ready.Status == "True"]
	fmt.Fprintf(out, "app/%s is %s (%s): %s\n", key.Name, verdict, ready.Reason, ready.Message)
	if hint := nextStep(ready.Reason); hint != "" {
		fmt.Fprintf(out, "What to do: %s\n", hint)
	}
	if c := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionSecretMissing); c != nil && c.Reason != ready.Reason {
		fmt.Fprintf(out, "Sites go on with earlier copies of their secrets, and nothing new is told: %s\n", c.Message)
	}
	hub, err := g.hub(ctx)
	if err != nil {
		return err
	}
	if err := whySiteLines(ctx, out, hub, key); err != nil {
		return err
	}
	return whyEventLines(ctx, out, c, &a)
}

// nextStep says what a person can do about a condition's reason.
func nextStep(reason string) string {
	switch reason {
	case v1alpha1.ReasonBundleNotFound:
		return "push the bundle with `skerry push DIR --version VERSION`, or correct spec.source.bundle"
	case v1alpha1.ReasonNoSites:
		return "label a site, or change spec.placement.sites"
	case v1alpha1.ReasonNotGranted:
		return "ask the fleet's administrator for a SiteGrant (`kubectl explain sitegrant.spec`)"
	case v1alpha1.ReasonSecretNotFound:
		return "make the Secret in the app's namespace, such as with `kubectl create secret generic`"
	case v1alpha1.ReasonSitesFailing:
		return "read the last lines below, push a corrected version and change spec.source.bundle"
	}
	return ""
}

func whySiteLines(ctx context.Context, out io.Writer, hub *hubclient.Client, key fleet.AppKey) error {
	replace := strings.NewReplacer("{namespace}", key.Namespace, "{app}", key.Name)
	var view app.StatusView
	if err := hub.Get(ctx, replace.Replace(app.PathStatus), nil, &view); err != nil {
		return err
	}
	shown := 0
	for _, s := range view.Sites {
		if s.Healthy || s.Standing == app.StandingWaiting {
			continue
		}
		if shown++; shown > whySites {
			continue
		}
		fmt.Fprintf(out, "\nSite %s: %s of %s, running %s", s.Site, s.Phase, releaseLabel(s.Desired), releaseLabel(s.Running))
		if s.Message != "" {
			fmt.Fprintf(out, ": %s", plain(s.Message))
		}
		fmt.Fprintln(out)
		for _, reason := range sortedKeys(s.Conditions) {
			fmt.Fprintf(out, "  %s: %s\n", plain(reason), plain(s.Conditions[reason]))
		}
		var lines bytes.Buffer
		query := url.Values{"site": {string(s.Site)}, "tail": {fmt.Sprint(whyLines)}}
		if err := hub.Stream(ctx, replace.Replace(app.PathLogs), query, &lines); err != nil {
			fmt.Fprintf(out, "  its log cannot be read: %v\n", err)
			continue
		}
		for line := range strings.Lines(lines.String()) {
			fmt.Fprintf(out, "  | %s", line)
		}
	}
	if shown > whySites {
		fmt.Fprintf(out, "\n%d more sites are not healthy: see `skerry status app/%s -o wide`\n", shown-whySites, key.Name)
	}
	return nil
}

func whyEventLines(ctx context.Context, out io.Writer, c client.Client, a *v1alpha1.App) error {
	var events corev1.EventList
	err := c.List(ctx, &events, client.InNamespace(a.Namespace), client.MatchingFieldsSelector{
		Selector: fields.SelectorFromSet(fields.Set{"involvedObject.kind": "App", "involvedObject.name": a.Name}),
	})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	sort.Slice(events.Items, func(i, j int) bool {
		return events.Items[j].LastTimestamp.Before(&events.Items[i].LastTimestamp)
	})
	if len(events.Items) > 0 {
		fmt.Fprintln(out, "\nEvents:")
	}
	for i, e := range events.Items {
		if i == whyEvents {
			break
		}
		fmt.Fprintf(out, "  %s ago  %s: %s\n", since(e.LastTimestamp.Unix()), e.Reason, e.Message)
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
