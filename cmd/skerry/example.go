package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/bundle"
	"github.com/skerry-dev/skerry/internal/ociclient"
)

// The example app: the one that `skerry app init` lays out, under another name.
const (
	exampleName      = "welcome"
	exampleVersion   = "1.0.0"
	exampleNamespace = "default"
)

// errNoExample is why there is no example when a person did not want one.
var errNoExample = errors.New("--no-example")

// example is the app that `up` shows. It is built once, at the first start, while the hub starts.
type example struct {
	marker string
	built  chan struct{}
	bundle *bundle.Bundle
	err    error
}

// startExample begins to build the example, unless an earlier `up` did: then its App is there, or a person
// deleted it and it stays away.
func startExample(ctx context.Context, f upFlags, log *slog.Logger) *example {
	e := &example{marker: filepath.Join(f.dataDir, "example.done"), built: make(chan struct{})}
	if f.noExample {
		e.err = errNoExample
		close(e.built)
		return e
	}
	if _, err := os.Stat(e.marker); err == nil {
		close(e.built)
		return e
	}
	go func() {
		defer close(e.built)
		dir := filepath.Join(f.dataDir, "example")
		if _, err := bundle.Scaffold(dir, exampleName, app.RuntimeProcess); err != nil && !errors.Is(err, os.ErrExist) {
			log.Debug("example is laid out already", "error", err)
		}
		// Only this machine's platform: its sites are here.
		e.bundle, e.err = bundle.Build(ctx, dir, exampleVersion, bundle.Options{Platforms: []string{"linux/" + runtime.GOARCH}, Log: log})
	}()
	return e
}

// place pushes the example and places it on every shop. An error says why there is none.
func (e *example) place(ctx context.Context, r runningHub, o *objects) error {
	select {
	case <-e.built:
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.err != nil || e.bundle == nil {
		return e.err
	}
	defer e.bundle.Close()
	u, err := url.Parse(r.url)
	if err != nil {
		return fmt.Errorf("address of the hub: %w", err)
	}
	ref := u.Host + "/" + exampleNamespace + "/" + exampleName + ":" + exampleVersion
	_, err = ociclient.Push(ctx, ref, e.bundle.Index, ociclient.Options{Transport: o.hub.Transport()})
	if err != nil && !errors.Is(err, ociclient.ErrVersionExists) {
		return fmt.Errorf("push the example: %w", err)
	}
	err = o.create(ctx, &v1alpha1.App{
		ObjectMeta: metav1.ObjectMeta{Namespace: exampleNamespace, Name: exampleName},
		Spec: v1alpha1.AppSpec{
			Source:    v1alpha1.AppSource{Bundle: exampleName + ":" + exampleVersion},
			Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{MatchLabels: map[string]string{"kind": "shop"}}},
			Route:     &v1alpha1.Route{Path: "/"},
		},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.marker, nil, 0o600); err != nil {
		return fmt.Errorf("remember the example: %w", err)
	}
	return nil
}
