package hub

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/wire"
)

// TestProblemsOfASite: what is wrong at a site is seen at the hub, in an order that does not change, within a
// bound, and only while it is wrong.
func TestProblemsOfASite(t *testing.T) {
	var site v1alpha1.Site
	show := func(problems map[string]string) string {
		showProblems(&site, wire.Report{Problems: problems})
		c := meta.FindStatusCondition(site.Status.Conditions, v1alpha1.ConditionDegraded)
		if c == nil {
			return ""
		}
		return string(c.Status) + " " + c.Message
	}
	for _, test := range []struct {
		reason   string
		problems map[string]string
		want     string
	}{
		{"all is well", nil, ""},
		{"the disk is full", map[string]string{"sync": "no space left on device"}, "True sync: no space left on device"},
		{"two parts, by name", map[string]string{"sync": "b", "apps": "a"}, "True apps: a; sync: b"},
		{"text from a site that is no UTF-8", map[string]string{"sync": "a\xffb"}, "True sync: a?b"},
		{"more than a person reads", map[string]string{"x": strings.Repeat("é", maxProblems)}, "True x: " + strings.Repeat("é", (maxProblems-3)/2) + "…"},
		{"well again", map[string]string{}, ""},
	} {
		if got := show(test.problems); got != test.want {
			t.Errorf("%s: %q, want %q", test.reason, got, test.want)
		}
	}
}
