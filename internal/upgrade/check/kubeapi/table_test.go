package kubeapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func load(t *testing.T) *Table {
	t.Helper()
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func target(t *testing.T, table *Table, minor string) Target {
	t.Helper()
	out, err := table.Target(minor)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTableIsComplete writes, for each minor, the list of what it serves from the table alone, and compares its digest
// with that of the list that was read from Kubernetes: a row that is missing, changed or one too many shows.
func TestTableIsComplete(t *testing.T) {
	table := load(t)
	for i, m := range table.Minors {
		if i > 0 && m.Minor != table.Minors[i-1].Minor+1 {
			t.Errorf("after 1.%d comes 1.%d", table.Minors[i-1].Minor, m.Minor)
		}
		var lines []string
		for _, a := range table.APIs {
			if a.Served.Has(m.Minor) {
				lines = append(lines, fmt.Sprintf("%s/%s %s %s namespaced=%t default=%t\n", a.Group, a.Version, a.Resource, a.Kind, a.Namespaced, a.Default.Has(m.Minor)))
			}
		}
		slices.Sort(lines)
		sum := sha256.Sum256([]byte(strings.Join(lines, "")))
		if len(lines) != m.Resources || hex.EncodeToString(sum[:]) != m.Digest {
			t.Errorf("1.%d: %d rows with digest %x, want %d with %s as read from %s", m.Minor, len(lines), sum, m.Resources, m.Digest, m.Module)
		}
		if want := fmt.Sprintf("k8s.io/kubernetes@v1.%d.0", m.Minor); m.Module != want || !strings.HasPrefix(m.Sum, "h1:") {
			t.Errorf("1.%d was read from %s (%s), want %s", m.Minor, m.Module, m.Sum, want)
		}
	}
}

func TestRowsAreSound(t *testing.T) {
	table := load(t)
	newest := table.newest()
	for _, a := range table.APIs {
		last := a.Served[len(a.Served)-1][1]
		switch {
		case last < newest && a.Removed != last+1:
			t.Errorf("%v: last served in %d, removed in %d", a.gvk(), last, a.Removed)
		case last == newest && a.Removed != 0 && (a.Removed <= newest || a.Source != "markers"):
			t.Errorf("%v is served in the newest minor, removed in %d by %s", a.gvk(), a.Removed, a.Source)
		}
		for _, d := range a.Default {
			if !a.Served.Has(d[0]) || !a.Served.Has(d[1]) {
				t.Errorf("%v: on by default in %v, served in %v", a.gvk(), a.Default, a.Served)
			}
		}
	}
}

// TestKnownFacts compares the table with what Kubernetes' deprecation guide and release notes say.
func TestKnownFacts(t *testing.T) {
	table := load(t)
	tests := []struct {
		of              GVK
		minor           string
		served, byDef   bool
		insteadVersions string
	}{
		{GVK{"extensions", "v1beta1", "Deployment"}, "1.15", true, true, ""},
		{GVK{"extensions", "v1beta1", "Deployment"}, "1.16", true, false, "apps/v1 Deployment"},
		{GVK{"extensions", "v1beta1", "Deployment"}, "1.18", false, false, "apps/v1 Deployment"},
		{GVK{"extensions", "v1beta1", "Ingress"}, "1.21", true, true, ""},
		{GVK{"extensions", "v1beta1", "Ingress"}, "1.22", false, false, "networking.k8s.io/v1 Ingress"},
		{GVK{"batch", "v1beta1", "CronJob"}, "1.25", false, false, "batch/v1 CronJob"},
		{GVK{"policy", "v1beta1", "PodSecurityPolicy"}, "1.25", false, false, ""},
		{GVK{"autoscaling", "v2beta2", "HorizontalPodAutoscaler"}, "1.26", false, false, "autoscaling/v2 HorizontalPodAutoscaler"},
		{GVK{"flowcontrol.apiserver.k8s.io", "v1beta1", "FlowSchema"}, "1.28", false, false, "flowcontrol.apiserver.k8s.io/v1beta3 FlowSchema"},
		{GVK{"flowcontrol.apiserver.k8s.io", "v1beta1", "FlowSchema"}, "1.32", false, false, "flowcontrol.apiserver.k8s.io/v1 FlowSchema"},
		{GVK{"flowcontrol.apiserver.k8s.io", "v1beta3", "FlowSchema"}, "1.31", true, true, ""},
		{GVK{"apiextensions.k8s.io", "v1beta1", "CustomResourceDefinition"}, "1.21", true, true, ""},
		{GVK{"apiextensions.k8s.io", "v1beta1", "CustomResourceDefinition"}, "1.22", false, false, "apiextensions.k8s.io/v1 CustomResourceDefinition"},
		{GVK{"networking.k8s.io", "v1alpha1", "ClusterCIDR"}, "1.28", true, false, ""},
		{GVK{"networking.k8s.io", "v1alpha1", "ClusterCIDR"}, "1.29", false, false, ""},
		{GVK{"resource.k8s.io", "v1", "DeviceClass"}, "1.34", true, true, ""},
		{GVK{"resource.k8s.io", "v1beta1", "DeviceClass"}, "1.34", true, false, "resource.k8s.io/v1 DeviceClass"},
		{GVK{"", "v1", "Pod"}, "1.14", true, true, ""},
	}
	for _, tt := range tests {
		at := target(t, table, tt.minor)
		apis := table.find(tt.of)
		if len(apis) != 1 || apis[0].servedIn(at) != tt.served || apis[0].defaultIn(at) != tt.byDef {
			t.Errorf("%v in %s: %+v, want served %v, by default %v", tt.of, tt.minor, apis, tt.served, tt.byDef)
		}
		if tt.served && tt.byDef {
			continue
		}
		got := ""
		if to, ok := table.instead(tt.of, at); ok {
			got = to.APIVersion() + " " + to.Kind
		}
		if got != tt.insteadVersions {
			t.Errorf("in place of %v in %s: %q, want %q", tt.of, tt.minor, got, tt.insteadVersions)
		}
	}
}

func TestTargets(t *testing.T) {
	table := load(t)
	newest := table.Newest()
	for _, text := range []string{newest.String(), "v" + newest.String(), newest.String() + ".3"} {
		if got, err := table.Target(text); err != nil || got != newest {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	next := name(newest.Minor + 1)
	if got := target(t, table, next); !got.Partial || got.String() != next {
		t.Errorf("%s is %+v, want it partial", next, got)
	}
	for _, unknown := range []string{name(table.planned() + 1), name(table.Minors[0].Minor - 1), "1.999", "1.0"} {
		if _, err := table.Target(unknown); !errors.Is(err, ErrUnknownMinor) {
			t.Errorf("%s: %v, want it refused as unknown", unknown, err)
		}
	}
	for _, bad := range []string{"", "1", "2.36", "1.x", "1.36.1.1", "1.-3", "latest", "1.99999999999"} {
		if _, err := table.Target(bad); err == nil || errors.Is(err, ErrUnknownMinor) {
			t.Errorf("%q: %v, want it refused as no version", bad, err)
		}
	}
}

func TestAnnouncedRemovals(t *testing.T) {
	table := load(t)
	announced := 0
	for _, a := range table.APIs {
		if a.Source != "markers" {
			continue
		}
		announced++
		if at := target(t, table, name(a.Removed)); a.servedIn(at) {
			t.Errorf("%v is served in %s, which is to remove it", a.gvk(), at)
		}
		if a.Removed-1 > table.newest() {
			if at := target(t, table, name(a.Removed-1)); !a.servedIn(at) {
				t.Errorf("%v is not served in %s, before it is to go", a.gvk(), at)
			}
		}
	}
	if announced == 0 {
		t.Error("no removal is announced")
	}
}

func TestOrderOfVersions(t *testing.T) {
	order := []string{"v1alpha1", "v1alpha2", "v2alpha1", "v1beta1", "v1beta2", "v2beta1", "v1", "v2"}
	for i := range order {
		for j := range order {
			if got := compareVersions(order[i], order[j]); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s compare as %d", order[i], order[j], got)
			}
		}
	}
}

func TestDamagedTables(t *testing.T) {
	for _, data := range []string{"", "{}", `{"minors": 5}`} {
		if _, err := parse([]byte(data)); err == nil {
			t.Errorf("%q was read", data)
		}
	}
}
