package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

func claimNamed(name, fingerprint, decision string) v1alpha1.SiteClaim {
	return v1alpha1.SiteClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1_800_000_000, 0))},
		Spec:       v1alpha1.SiteClaimSpec{Decision: decision, Request: v1alpha1.SiteClaimRequest{Fingerprint: fingerprint, Hostname: "box"}},
	}
}

func TestPickClaim(t *testing.T) {
	claims := []v1alpha1.SiteClaim{
		claimNamed("c-1", "aa", v1alpha1.ClaimPending), claimNamed("c-2", "bb", v1alpha1.ClaimPending),
		claimNamed("c-3", "bb", v1alpha1.ClaimDenied), claimNamed("c-4", "", v1alpha1.ClaimPending),
	}
	tests := []struct{ what, want, err, why string }{
		{"c-1", "c-1", "", "by its name"},
		{"aa", "c-1", "", "by the machine"},
		{"bb", "", "2 claims say that they are the machine bb: c-2, c-3", "a person has to say which of two"},
		{"c-3", "c-3", "", "and can"},
		{"cc", "", "there is no claim", "unknown"},
		{"", "", "there is no claim", "nothing is not the machine without a fingerprint"},
	}
	for _, tt := range tests {
		got, err := pickClaim(claims, tt.what)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q gives %v, %v; want %q: %s", tt.what, got, err, tt.err, tt.why)
			}
			continue
		}
		if err != nil || got.Name != tt.want {
			t.Errorf("%q gives %v, %v; want %s: %s", tt.what, got, err, tt.want, tt.why)
		}
	}
}

func TestPrintClaims(t *testing.T) {
	claims := []v1alpha1.SiteClaim{
		claimNamed("c-1", "aa", v1alpha1.ClaimPending), claimNamed("c-2", "bb", v1alpha1.ClaimPending), claimNamed("c-3", "bb", v1alpha1.ClaimDenied),
	}
	now := time.Unix(1_800_000_000, 0).Add(5 * time.Minute)
	var out bytes.Buffer
	if err := printClaims(&out, claims, false, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"c-1", "5m", "bb (twice)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "c-3") {
		t.Errorf("a decided claim waits:\n%s", &out)
	}
	out.Reset()
	if err := printClaims(&out, claims, true, now); err != nil || !strings.Contains(out.String(), "Denied") {
		t.Errorf("--all prints, %v:\n%s", err, &out)
	}
	out.Reset()
	if err := printClaims(&out, nil, false, now); err != nil || !strings.Contains(out.String(), "No machine waits") {
		t.Errorf("an empty queue prints, %v:\n%s", err, &out)
	}
}
