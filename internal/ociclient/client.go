// Package ociclient pushes bundles to OCI registries, resolves what references name, and copies content
// from one registry to another, over go-containerregistry.
//
// It is a driver for cli and cmd: it imports the kernel and go-containerregistry and knows nothing of
// hub or sites. The hub's own registry is reached with a transport that carries the caller's Kubernetes
// identity, any other with the logins of the docker configuration. Content is verified by digest in both
// directions. Every error is an *Error, which wraps one of this package's error values and has a hint
// about the next step.
package ociclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Options say how a registry is reached. The zero value is a registry behind TLS that a stranger may use.
type Options struct {
	// Transport carries the requests; nil means go-containerregistry's, which honours HTTPS_PROXY. For
	// the hub it presents the client certificate or adds the bearer token. Whoever resolves or copies
	// what a user named, on a machine that reaches more than the user does, hands in one that refuses
	// addresses outside an allow-list.
	Transport http.RoundTripper
	// Keychain has the logins of registries; nil means none, as for the hub. See DockerLogins.
	Keychain authn.Keychain
	// PlainHTTP allows a registry without TLS. Without it not even one on this machine is asked in the
	// clear, so that no identity is ever sent so.
	PlainHTTP bool
	// Progress is told the bytes that were sent and the bytes to send, as far as they are known. It is called
	// from one goroutine, and must not block for long. It may be nil.
	Progress func(done, total int64)
}

// DockerLogins are the logins of this user's docker configuration and its credential helpers.
func DockerLogins() authn.Keychain { return authn.DefaultKeychain }

// Descriptor says what a reference names.
type Descriptor struct {
	// Ref is the reference with the digest in place of the tag.
	Ref       string
	Digest    fleet.Digest
	MediaType string
	Size      int64
}

// Push stores index, with all that it names, under ref: "host/namespace/name:version". Content that the registry
// already has is not sent again. The tag is written last, so a push that breaks leaves no half version.
func Push(ctx context.Context, ref string, index v1.ImageIndex, opts Options) (Descriptor, error) {
	op := operation{"push", ref, opts}
	target, err := op.parse()
	if err != nil {
		return Descriptor{}, err
	}
	if err := op.write(ctx, target, index); err != nil {
		return Descriptor{}, op.explain(err)
	}
	return op.describe(target, index)
}

// Resolve returns what ref, by tag or digest, names now.
func Resolve(ctx context.Context, ref string, opts Options) (Descriptor, error) {
	op := operation{"resolve", ref, opts}
	target, err := op.parse()
	if err != nil {
		return Descriptor{}, err
	}
	got, err := remote.Get(target, op.remote(ctx)...)
	if err != nil {
		return Descriptor{}, op.explain(err)
	}
	return Descriptor{
		Ref: target.Context().Digest(got.Digest.String()).Name(), Digest: fleet.Digest(got.Digest.String()),
		MediaType: string(got.MediaType), Size: got.Size,
	}, nil
}

// Copy stores the index that from names under to. Both keep the same digest; every blob is verified on
// the way.
func Copy(ctx context.Context, from string, fromOpts Options, to string, toOpts Options) (Descriptor, error) {
	source, sink := operation{"read", from, fromOpts}, operation{"push", to, toOpts}
	src, err := source.parse()
	if err != nil {
		return Descriptor{}, err
	}
	dst, err := sink.parse()
	if err != nil {
		return Descriptor{}, err
	}
	got, err := remote.Get(src, source.remote(ctx)...)
	if err != nil {
		return Descriptor{}, source.explain(err)
	}
	if !got.MediaType.IsIndex() {
		return Descriptor{}, source.fail(ErrNotBundle, fmt.Errorf("its media type is %s, want an image index", got.MediaType))
	}
	index, err := got.ImageIndex()
	if err != nil {
		return Descriptor{}, source.explain(err)
	}
	if err := sink.write(ctx, dst, copied{index, source}); err != nil {
		if wrapped := (*Error)(nil); errors.As(err, &wrapped) {
			return Descriptor{}, wrapped // reading broke, not writing
		}
		return Descriptor{}, sink.explain(err)
	}
	return sink.describe(dst, index)
}

// operation is one call of this package, as errors name it.
type operation struct {
	verb string
	ref  string
	opts Options
}

func (op operation) parse() (name.Reference, error) {
	var opts []name.Option
	if op.opts.PlainHTTP {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(op.ref, append(opts, name.StrictValidation)...)
	if err != nil {
		return nil, op.fail(ErrReference, err)
	}
	return ref, nil
}

func (op operation) remote(ctx context.Context) []remote.Option {
	var base http.RoundTripper = remote.DefaultTransport
	if op.opts.Transport != nil {
		base = op.opts.Transport
	}
	out := []remote.Option{remote.WithContext(ctx), remote.WithTransport(guard{base, op.opts.PlainHTTP}), remote.WithUserAgent("skerry")}
	if op.opts.Keychain != nil {
		out = append(out, remote.WithAuthFromKeychain(op.opts.Keychain))
	}
	return out
}

func (op operation) write(ctx context.Context, target name.Reference, index v1.ImageIndex) error {
	opts := op.remote(ctx)
	if op.opts.Progress == nil {
		return remote.WriteIndex(target, index, opts...)
	}
	updates, over, drained := make(chan v1.Update), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		for {
			select {
			case u, open := <-updates:
				if !open {
					return
				}
				if u.Error == nil {
					op.opts.Progress(u.Complete, u.Total)
				}
			case <-over:
				return
			}
		}
	}()
	err := remote.WriteIndex(target, index, append(opts, remote.WithProgress(updates))...)
	close(over) // updates is closed already, unless the options were refused
	<-drained
	return err
}

func (op operation) describe(target name.Reference, index v1.ImageIndex) (Descriptor, error) {
	digest, err := index.Digest()
	if err != nil {
		return Descriptor{}, op.explain(err)
	}
	size, err := index.Size()
	if err != nil {
		return Descriptor{}, op.explain(err)
	}
	mediaType, err := index.MediaType()
	if err != nil {
		return Descriptor{}, op.explain(err)
	}
	return Descriptor{
		Ref: target.Context().Digest(digest.String()).Name(), Digest: fleet.Digest(digest.String()),
		MediaType: string(mediaType), Size: size,
	}, nil
}

// guard refuses to send anything in the clear unless that is allowed: go-containerregistry tries plain
// HTTP beside TLS for every address on this machine or in a private network. It also fetches the reason of a
// refused HEAD, whose answer has none.
type guard struct {
	base  http.RoundTripper
	plain bool
}

// RoundTrip implements http.RoundTripper.
func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.plain {
		return nil, fmt.Errorf("%s: %w", req.URL.Host, errPlain)
	}
	resp, err := g.base.RoundTrip(req)
	if err != nil || req.Method != http.MethodHead || resp.StatusCode != http.StatusForbidden {
		return resp, err
	}
	again := req.Clone(req.Context())
	again.Method = http.MethodGet
	told, err := g.base.RoundTrip(again)
	if err != nil {
		return resp, nil
	}
	if told.StatusCode != resp.StatusCode {
		return resp, told.Body.Close()
	}
	if err := resp.Body.Close(); err != nil {
		return nil, errors.Join(err, told.Body.Close())
	}
	return told, nil
}
