package ociregistry_test

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/ociregistry"
)

func TestFiles(t *testing.T) {
	fsys := fstest.MapFS{
		"registry/blobs/sha256/aa":             {},
		"registry/blobs/sha256/bb":             {},
		"registry/repos/a/b/_tags/1.0.0":       {},
		"registry/repos/a/b/_manifests/aa":     {},
		"registry/quarantine/cc":               {},
		"registry/tmp/half":                    {},
		"registry-of-somebody/blobs/sha256/dd": {},
	}
	want := []string{
		"registry/repos/a/b/_manifests/aa", "registry/repos/a/b/_tags/1.0.0",
		"registry/blobs/sha256/aa", "registry/blobs/sha256/bb",
	}
	var got []string
	if err := ociregistry.Files(fsys, "registry", func(name string) error { got = append(got, name); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("links come before content, and nothing else comes (-want +got):\n%s", diff)
	}
	err := ociregistry.Files(fstest.MapFS{}, "registry", func(string) error { t.Error("a file of none"); return nil })
	if err != nil {
		t.Errorf("no registry: %v", err)
	}
}
