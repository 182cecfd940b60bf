package siteupgrade

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

func TestFailedLast(t *testing.T) {
	site := func(name string, phase string) v1alpha1.Site {
		s := v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if phase != "" {
			s.Status.Agent = &v1alpha1.SiteAgentStatus{Phase: phase}
		}
		return s
	}
	sites := []v1alpha1.Site{site("a", v1alpha1.AgentFailed), site("b", ""), site("c", v1alpha1.AgentFailed), site("d", "Running")}
	failedLast(sites)
	var got []string
	for _, s := range sites {
		got = append(got, s.Name)
	}
	if diff := cmp.Diff([]string{"b", "d", "a", "c"}, got); diff != "" {
		t.Errorf("the bad agent reaches a site that waits (-want +got):\n%s", diff)
	}
}

func TestIndexRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ reason, file string }{
		{"a script is no agent", text},
		{"a Go program that is another", own},
		{"nothing", filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := Index([]string{row.file}); err == nil || row.file == own && !errors.Is(err, ErrNotAgent) {
			t.Errorf("%s: %v", row.reason, err)
		}
	}
}
