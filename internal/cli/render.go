package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func newRender(g *globals) *cobra.Command {
	var siteName string
	c := &cobra.Command{
		Use:   "render app/NAME --site SITE",
		Short: "Show what a site gets of an app",
		Long: "Show what a site gets of an app's newest release, before or after it was told. What a site gets is\n" +
			"a function of the release and the site's facts alone; its digest is what the site reports back.",
		Example: "  skerry render app/hello --site shop-2",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := g.appKey(args[0])
			if err != nil {
				return err
			}
			if siteName == "" {
				return Usage(fmt.Errorf("--site must name a site"))
			}
			data, err := g.render(cmd.Context(), key, siteName)
			if err != nil {
				return err
			}
			_, err = g.streams.Out.Write(data)
			return err
		},
	}
	c.Flags().StringVar(&siteName, "site", "", "site to render for (required)")
	return c
}

func (g *globals) render(ctx context.Context, key fleet.AppKey, siteName string) ([]byte, error) {
	c, err := g.objects()
	if err != nil {
		return nil, err
	}
	var a v1alpha1.App
	if err := c.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, &a); err != nil {
		return nil, fmt.Errorf("read app: %w", err)
	}
	var site v1alpha1.Site
	if err := c.Get(ctx, client.ObjectKey{Name: siteName}, &site); err != nil {
		return nil, fmt.Errorf("read site: %w", err)
	}
	if a.Status.Release == "" {
		return nil, Hint(fmt.Errorf("app %s has no release yet", key), "see `skerry why app/%s`", key.Name)
	}
	var release v1alpha1.Release
	if err := c.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: a.Status.Release}, &release); err != nil {
		return nil, fmt.Errorf("read release: %w", err)
	}
	placement, err := appapi.Render(&release, appapi.Facts(&site))
	if err != nil {
		return nil, err
	}
	data, err := yaml.Marshal(placement)
	if err != nil {
		return nil, fmt.Errorf("encode placement: %w", err)
	}
	return data, nil
}

// objects returns a client of the Kubernetes API for Skerry's kinds.
func (g *globals) objects() (client.Client, error) {
	config, err := g.flags.ToRESTConfig()
	if err != nil {
		return nil, Hint(fmt.Errorf("find the Kubernetes API: %w", err), "set KUBECONFIG as `skerry up` printed it")
	}
	config.QPS = -1 // the server's own priority and fairness bound this client
	scheme := runtime.NewScheme()
	if err := addToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make scheme: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("client of the Kubernetes API: %w", err)
	}
	return c, nil
}

// labelsOf reads k=v pairs.
func labelsOf(pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range pairs {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, Usage(fmt.Errorf("--label %q: want KEY=VALUE", pair))
		}
		out[k] = v
	}
	return out, nil
}
