package enroll_test

import (
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Fingerprints of two machines.
const (
	machineA = "0123456789abcdef0123456789abcdef"
	machineB = "fedcba9876543210fedcba9876543210"
)

func optionsOf(t testing.TB, fingerprint string) enrollsite.Options {
	o := siteOptions(t)
	o.Hardware.Fingerprint = fingerprint
	return o
}

// TestBoundToAMachine: a token, or its site, names the only machine that may use it.
func TestBoundToAMachine(t *testing.T) {
	tests := []struct {
		name             string
		token, site, box string
		refused          string
	}{
		{"an agent from before fingerprints joins where nothing is bound", "", "", "", ""},
		{"a machine that says who it is joins where nothing is bound", "", "", machineA, ""},
		{"the machine of the token joins", machineA, "", machineA, ""},
		{"another than the token's does not", machineA, "", machineB, "this join token of site"},
		{"one that says nothing is not the token's", machineA, "", "", "upgrade its agent"},
		{"the machine of the site joins with a token for any", "", machineA, machineA, ""},
		{"another than the site's does not", "", machineA, machineB, `site "shop-1": bound to another machine`},
		{"the token does not open a site that is bound to another", machineB, machineA, machineB, `site "shop-1": bound to another machine`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := startHub(t)
			h.records.bound["shop-1"] = tt.site
			token, err := h.NewToken(t.Context(), "shop-1", tt.token, []string{h.url()}, time.Hour)
			must(t, err)
			id, err := enrollsite.Join(t.Context(), optionsOf(t, tt.box), token)
			if tt.refused == "" {
				must(t, err)
				wantKnown(t, id)
				if m := h.records.sites["shop-1"]; len(m) != 1 || m[0].Fingerprint != tt.box {
					t.Errorf("the hub keeps %+v", m)
				}
				return
			}
			wantRefused(t, err, wire.RefusedHardware)
			if !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("refused with %q, want %q in it", err, tt.refused)
			}
			// A refused machine does not spend the token.
			h.records.bound["shop-1"] = ""
			right := tt.token
			if right == "" {
				right = machineA
			}
			id, err = enrollsite.Join(t.Context(), optionsOf(t, right), token)
			must(t, err)
			wantKnown(t, id)
		})
	}
}

func TestFingerprintThatIsNone(t *testing.T) {
	h := startHub(t)
	for _, bad := range []string{"x", machineA + "0", strings.ToUpper(machineB), strings.Repeat("é", 16)} {
		_, err := enrollsite.Join(t.Context(), optionsOf(t, bad), h.token(t, "shop-1"))
		wantRefused(t, err, wire.RefusedInvalid)
		if _, err := h.NewToken(t.Context(), "shop-1", bad, nil, time.Hour); err == nil {
			t.Errorf("a token is bound to %q", bad)
		}
		if fleet.ValidateFingerprint(bad) == nil {
			t.Errorf("%q is a fingerprint", bad)
		}
	}
}
