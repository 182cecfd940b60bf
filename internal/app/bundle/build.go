package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Options of Build. The zero value builds what the source says with the go command of the PATH.
type Options struct {
	// Platforms in place of those of the source, such as "linux/arm64".
	Platforms []string
	// GoCommand is the program that builds Go apps; empty means "go".
	GoCommand string
	// Log is told what happens; nil discards it.
	Log *slog.Logger
}

// Bundle is a built bundle. Its layers are files in a temporary directory until Close.
type Bundle struct {
	Index  v1.ImageIndex
	Digest fleet.Digest
	Config app.BundleConfig
	dir    string
}

// Close removes the bundle's files; Index cannot be read any more.
func (b *Bundle) Close() error { return os.RemoveAll(b.dir) }

// tag is what the distribution specification allows a version to be.
var tag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// Build makes the bundle of the app in dir. The caller closes it.
func Build(ctx context.Context, dir, version string, opts Options) (_ *Bundle, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	source, err := ReadSource(dir)
	if err != nil {
		return nil, err
	}
	platforms, err := source.platforms(opts.Platforms)
	if err != nil {
		return nil, failf(ErrSource, "", "%v", err)
	}
	if !tag.MatchString(version) {
		return nil, failf(ErrSource, "choose one such as 1.0.0", "version %q: want letters, digits, '.', '_' and '-', at most 128", version)
	}
	tmp, err := os.MkdirTemp("", "skerry-bundle-")
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	b := builder{source: source, dir: dir, tmp: tmp, log: opts.Log}
	if source.Build.Go != nil {
		if b.tools, err = findToolchain(ctx, opts.GoCommand, dir); err != nil {
			return nil, err
		}
	}
	return b.bundle(ctx, version, platforms)
}

// builder is one call of Build.
type builder struct {
	source Source
	dir    string
	tmp    string
	tools  toolchain
	log    *slog.Logger
}

func (b builder) bundle(ctx context.Context, version string, platforms []Platform) (*Bundle, error) {
	config := b.source.Config(version)
	var err error
	if config.Defaults, err = b.source.defaults(b.dir); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	// What a site would refuse is refused here.
	if config, err = app.ParseBundleConfig(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", SourceFile, err)
	}
	if err := config.CheckDefaults(); err != nil {
		return nil, fmt.Errorf("%s: %w", SourceFile, err)
	}
	annotations := map[string]string{
		ocispec.AnnotationTitle:   b.source.Name,
		ocispec.AnnotationVersion: version,
	}
	var images []*image
	for _, p := range platforms {
		begun := time.Now()
		files, err := b.files(ctx, p, config)
		if err != nil {
			return nil, err
		}
		img, err := newImage(raw, files, annotations)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
		b.log.Info("built", "app", b.source.Name, "platform", p, "bytes", files.size, "took", time.Since(begun).Round(time.Millisecond))
	}
	index, err := newIndex(platforms, images, annotations)
	if err != nil {
		return nil, err
	}
	return &Bundle{Index: index, Digest: fleet.DigestOf(index.manifest), Config: config, dir: b.tmp}, nil
}

// files builds and packs what one platform needs.
func (b builder) files(ctx context.Context, p Platform, config app.BundleConfig) (packed, error) {
	entries, err := collect(b.dir, b.source.Build.Files, p)
	if err != nil {
		return packed{}, err
	}
	work := filepath.Join(b.tmp, p.OS+"-"+p.Arch)
	if g := b.source.Build.Go; g != nil {
		program := work + "-program"
		if err := b.tools.build(ctx, b.dir, *g, p, program); err != nil {
			return packed{}, err
		}
		entries = append(entries, entry{name: b.source.program(), file: program, exec: b.source.Runtime != app.RuntimeWasm})
	}
	if err := checkCommand(config, entries); err != nil {
		return packed{}, err
	}
	return pack(work+".tar.gz", entries)
}

// checkCommand finds out now what would fail at every site.
func checkCommand(config app.BundleConfig, entries []entry) error {
	if config.Wasm != nil {
		if !slices.ContainsFunc(entries, func(e entry) bool { return e.name == config.Wasm.Module }) {
			return failf(ErrSource, "name a file that the build puts into the bundle", "%s: wasm.module: %q is not in the bundle", SourceFile, config.Wasm.Module)
		}
		return nil
	}
	command := config.Process.Command[0]
	i := slices.IndexFunc(entries, func(e entry) bool { return e.name == command })
	if i < 0 {
		return failf(ErrSource, "name a file that the build puts into the bundle", "%s: process.command[0]: %q is not in the bundle", SourceFile, command)
	}
	if !entries[i].exec {
		return failf(ErrSource, "set mode: \"0755\" for it under build.files", "%s: process.command[0]: %q cannot be executed", SourceFile, command)
	}
	return nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
