package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/app/appschema"
	"github.com/skerry-dev/skerry/internal/app/bundle"
	"github.com/skerry-dev/skerry/internal/ociclient"
)

type pushFlags struct {
	version, to, from string
	platforms         []string
}

func newPush(g *globals) *cobra.Command {
	var f pushFlags
	c := &cobra.Command{
		Use:   "push DIR --version VERSION",
		Short: "Build an app and store it as a bundle",
		Long: "Build the app in DIR as its bundle.yaml says, for every platform, and store it as an OCI artifact\n" +
			"in the hub's registry, in the repository NAMESPACE/NAME. A version is stored once: the same source\n" +
			"may be pushed again, other content needs another version. --to stores it in any other registry,\n" +
			"with the logins of the docker configuration; --from copies a bundle out of one into the hub's, from\n" +
			"where sites get it.",
		Example: "  skerry push . --version 1.0.0\n  skerry push ./hello --version 1.1.0 --platform linux/arm64\n" +
			"  skerry push . --version 1.0.0 --to registry.example.com/shop/hello\n" +
			"  skerry push --from registry.example.com/shop/hello:1.0.0",
		Args: func(cmd *cobra.Command, args []string) error {
			if f.from != "" {
				return exactArgs(0)(cmd, args)
			}
			return exactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.from != "" {
				return g.pushFrom(cmd.Context(), f)
			}
			if f.version == "" {
				return Usage(fmt.Errorf("--version must name the version to store"))
			}
			return g.push(cmd.Context(), args[0], f)
		},
	}
	c.Flags().StringVar(&f.version, "version", "", "version to store it as (required)")
	c.Flags().StringVar(&f.to, "to", "", "repository of another registry, HOST/PATH")
	c.Flags().StringVar(&f.from, "from", "", "bundle of another registry to copy into the hub's, HOST/PATH:VERSION")
	c.Flags().StringArrayVar(&f.platforms, "platform", nil, "build for this platform only, such as linux/arm64; may be given again")
	c.MarkFlagsMutuallyExclusive("from", "to")
	c.MarkFlagsMutuallyExclusive("from", "platform")
	return c
}

func (g *globals) push(ctx context.Context, dir string, f pushFlags) error {
	log := slog.New(slog.DiscardHandler)
	built, err := bundle.Build(ctx, dir, f.version, bundle.Options{Platforms: f.platforms, Log: log})
	if err != nil {
		return err
	}
	defer built.Close()
	if d := built.Config.Defaults; d != nil && d.Schema != nil {
		if _, err := appschema.Compile(d.Schema); err != nil { // the hub would refuse it
			return err
		}
	}
	ref, shown, opts, err := g.target(ctx, built.Config.Name, f)
	if err != nil {
		return err
	}
	opts.Progress = g.pushProgress()
	d, err := ociclient.Push(ctx, ref, built.Index, opts)
	if err != nil {
		return err
	}
	if opts.Progress != nil {
		fmt.Fprint(g.streams.ErrOut, "\r\x1b[2K")
	}
	fmt.Fprintf(g.streams.Out, "%s@%s\n", shown, d.Digest)
	if f.to == "" {
		fmt.Fprintf(g.streams.ErrOut, "\nNext: spec.source.bundle: %q, then skerry apply -f %s\n", built.Config.Name+":"+f.version, filepath.Join(dir, "app.yaml"))
	}
	return nil
}

// pushFrom copies a bundle of another registry, with this person's logins there and rights here: the hub itself
// never fetches what somebody names.
func (g *globals) pushFrom(ctx context.Context, f pushFlags) error {
	repository, version, ok := cutVersion(f.from)
	if f.version != "" {
		version, ok = f.version, true
	}
	if !ok {
		return Usage(fmt.Errorf("--from %s: names no version: add :VERSION, or --version for what to call it here", f.from))
	}
	f.version = version
	name := repository[strings.LastIndex(repository, "/")+1:]
	ref, shown, opts, err := g.target(ctx, name, f)
	if err != nil {
		return err
	}
	opts.Progress = g.pushProgress()
	d, err := ociclient.Copy(ctx, f.from, ociclient.Options{Keychain: ociclient.DockerLogins()}, ref, opts)
	if err != nil {
		return err
	}
	if opts.Progress != nil {
		fmt.Fprint(g.streams.ErrOut, "\r\x1b[2K")
	}
	_, err = fmt.Fprintf(g.streams.Out, "%s@%s\n", shown, d.Digest)
	return err
}

// cutVersion splits HOST/PATH:VERSION; a reference by digest has no version.
func cutVersion(ref string) (repository, version string, ok bool) {
	if at := strings.LastIndex(ref, "@"); at >= 0 {
		return ref[:at], "", false
	}
	slash := strings.LastIndex(ref, "/")
	if colon := strings.LastIndex(ref, ":"); colon > slash {
		return ref[:colon], ref[colon+1:], true
	}
	return ref, "", false
}

// target returns where to push, how to name that to people, and how it is reached.
func (g *globals) target(ctx context.Context, name string, f pushFlags) (ref, shown string, opts ociclient.Options, err error) {
	if f.to != "" {
		ref = f.to + ":" + f.version
		return ref, ref, ociclient.Options{Keychain: ociclient.DockerLogins()}, nil
	}
	hub, err := g.hub(ctx)
	if err != nil {
		return "", "", opts, err
	}
	ns, err := g.namespace()
	if err != nil {
		return "", "", opts, err
	}
	u, err := url.Parse(hub.URL)
	if err != nil {
		return "", "", opts, fmt.Errorf("address of the hub: %w", err)
	}
	shown = strings.Join([]string{ns, name + ":" + f.version}, "/")
	return u.Host + "/" + shown, shown, ociclient.Options{Transport: hub.Transport()}, nil
}

// pushProgress shows how much was sent, on a terminal alone.
func (g *globals) pushProgress() func(done, total int64) {
	if !colored(g.streams.ErrOut) {
		return nil
	}
	return func(done, total int64) {
		const mib = 1 << 20
		fmt.Fprintf(g.streams.ErrOut, "\rpushing %.1f of %.1f MiB", float64(done)/mib, float64(total)/mib)
	}
}
