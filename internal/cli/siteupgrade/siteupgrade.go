// Package siteupgrade is `skerry site upgrade`: it stores agents in the hub's registry and asks sites to run one. Only
// package cli imports it.
package siteupgrade

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/ociclient"
	"github.com/skerry-dev/skerry/internal/upkeep"
)

// Deps are what package cli hands in.
type Deps struct {
	Hub     func(context.Context) (*hubclient.Client, error)
	Objects func() (client.Client, error)
	// Usage marks an error as one of the person's own command line.
	Usage func(error) error
	Out   io.Writer
}

type flags struct {
	to, selector   string
	from           []string
	maxUnavailable int32
	deadline       int32
	all            bool
}

// New returns the command.
func New(d Deps) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "upgrade [NAME...] --to VERSION [--from FILE]",
		Short: "Let sites run another agent, which goes back by itself when it is bad",
		Long: "Ask sites to run the agent of VERSION: those named, or those that --selector matches, or --all. With --from\n" +
			"it is stored in the hub's registry first; give the files of several architectures together. A version is\n" +
			"stored once. At most --max-unavailable of the sites try it at one time; one at which it fails runs the one\n" +
			"before and takes that room, so that a bad agent stops by itself. Ask for an earlier version to go back.",
		Example: "  skerry site upgrade --all --from bin/skerry-site --to 1.1.0\n" +
			"  skerry site upgrade -l ring=canary --to 1.1.0 --max-unavailable 3\n  skerry site upgrade shop-4 --to 1.0.0",
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen := 0
			for _, said := range []bool{len(args) > 0, f.selector != "", f.all} {
				if said {
					chosen++
				}
			}
			if f.to == "" || chosen != 1 {
				return d.Usage(errors.New("name --to VERSION, and which sites: names, --selector or --all"))
			}
			return f.run(cmd.Context(), d, args)
		},
	}
	c.Flags().StringVar(&f.to, "to", "", "version to run")
	c.Flags().StringArrayVar(&f.from, "from", nil, "file of the agent to store as that version; may be given again for another architecture")
	c.Flags().StringVarP(&f.selector, "selector", "l", "", "label selector of the sites")
	c.Flags().BoolVar(&f.all, "all", false, "every site")
	c.Flags().Int32Var(&f.maxUnavailable, "max-unavailable", 1, "how many sites may try it, or have failed, at one time")
	c.Flags().Int32Var(&f.deadline, "deadline", upkeep.DefaultDeadline, "seconds until agent and apps must be healthy")
	return c
}

func (f flags) run(ctx context.Context, d Deps, names []string) error {
	selector, err := labels.Parse(f.selector)
	if err != nil {
		return d.Usage(fmt.Errorf("--selector: %w", err))
	}
	objects, err := d.Objects()
	if err != nil {
		return err
	}
	sites, err := chosen(ctx, objects, names, selector)
	if err != nil {
		return err
	}
	hub, err := d.Hub(ctx)
	if err != nil {
		return err
	}
	stored, err := f.store(ctx, hub)
	if err != nil {
		return err
	}
	failedLast(sites)
	for i := range sites {
		site := &sites[i]
		before := site.DeepCopy()
		attempt := int32(0)
		if a := site.Spec.Agent; a != nil && a.Digest == string(stored.Digest) {
			attempt = a.Attempt
			if st := site.Status.Agent; st != nil && st.Phase == v1alpha1.AgentFailed {
				attempt++ // asked for again: another try
			}
		}
		site.Spec.Agent = &v1alpha1.SiteAgent{
			Version: f.to, Digest: string(stored.Digest), MaxUnavailable: f.maxUnavailable, DeadlineSeconds: f.deadline, Attempt: attempt,
		}
		if err := objects.Patch(ctx, site, client.MergeFrom(before)); err != nil {
			return fmt.Errorf("ask site %s: %w", site.Name, err)
		}
	}
	_, err = fmt.Fprintf(d.Out, "%d sites are to run agent %s, %d at a time; `skerry get sites` shows how far they are\n", len(sites), f.to, f.maxUnavailable)
	return err
}

// failedLast puts the sites at which an upgrade failed behind the others. Each takes room among those that are to run
// the same agent: were it asked for another first, a site that still waits would be told the agent that failed there.
func failedLast(sites []v1alpha1.Site) {
	failed := func(s v1alpha1.Site) int {
		if s.Status.Agent != nil && s.Status.Agent.Phase == v1alpha1.AgentFailed {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(sites, func(a, b v1alpha1.Site) int { return failed(a) - failed(b) })
}

func chosen(ctx context.Context, objects client.Client, names []string, selector labels.Selector) ([]v1alpha1.Site, error) {
	var sites []v1alpha1.Site
	for _, name := range names {
		var site v1alpha1.Site
		if err := objects.Get(ctx, client.ObjectKey{Name: name}, &site); err != nil {
			return nil, fmt.Errorf("read site %s: %w", name, err)
		}
		sites = append(sites, site)
	}
	if len(names) > 0 {
		return sites, nil
	}
	var list v1alpha1.SiteList
	if err := objects.List(ctx, &list, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, fmt.Errorf("no site matches %q", selector)
	}
	return list.Items, nil
}

// store pushes what --from names, or finds what was pushed before.
func (f flags) store(ctx context.Context, hub *hubclient.Client) (ociclient.Descriptor, error) {
	u, err := url.Parse(hub.URL)
	if err != nil {
		return ociclient.Descriptor{}, fmt.Errorf("address of the hub: %w", err)
	}
	ref := u.Host + "/" + upkeep.Repository + ":" + f.to
	options := ociclient.Options{Transport: hub.Transport()}
	if len(f.from) == 0 {
		return ociclient.Resolve(ctx, ref, options)
	}
	index, err := Index(f.from)
	if err != nil {
		return ociclient.Descriptor{}, err
	}
	return ociclient.Push(ctx, ref, index, options)
}

// ErrNotAgent is wrapped when a file is no agent.
var ErrNotAgent = errors.New("not an agent")

// Index makes what is stored of the agents in files, one an architecture.
func Index(files []string) (v1.ImageIndex, error) {
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	seen := map[string]string{}
	for _, file := range files {
		arch, err := archOf(file)
		if err != nil {
			return nil, err
		}
		if other, ok := seen[arch]; ok {
			return nil, fmt.Errorf("%s and %s are both for %s: %w", other, file, arch, ErrNotAgent)
		}
		seen[arch] = file
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read agent: %w", err)
		}
		if len(data) > upkeep.MaxSize {
			return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed: %w", file, len(data), upkeep.MaxSize, ErrNotAgent)
		}
		image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		image, err = mutate.AppendLayers(image, static.NewLayer(bytes.Clone(data), upkeep.MediaTypeBinary))
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", file, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return index, nil
}

// archOf reads from a program what Go wrote into it: it must be the small agent, for Linux.
func archOf(file string) (string, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", file, err, ErrNotAgent)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if !strings.HasSuffix(info.Path, "/cmd/skerry-site") || settings["GOOS"] != "linux" || settings["GOARCH"] == "" {
		return "", fmt.Errorf("%s is %s for %s/%s, want skerry-site for linux: %w", file, info.Path, settings["GOOS"], settings["GOARCH"], ErrNotAgent)
	}
	return settings["GOARCH"], nil
}
