package fleet_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// abc is the example of FIPS 180-4 for SHA-256.
const abc = fleet.Digest("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

func TestDigestOf(t *testing.T) {
	if got := fleet.DigestOf([]byte("abc")); got != abc {
		t.Errorf("DigestOf(abc) = %s, want %s", got, abc)
	}
	v := fleet.NewVerifier()
	for _, part := range []string{"a", "", "bc"} {
		if n, err := v.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", part, n, err)
		}
	}
	if got := v.Digest(); got != abc {
		t.Errorf("a digest of parts is %s, want %s", got, abc)
	}
	got, n, err := fleet.DigestReader(iotest.OneByteReader(strings.NewReader("abc")))
	if got != abc || n != 3 || err != nil {
		t.Errorf("DigestReader = %s, %d, %v", got, n, err)
	}
	if _, _, err := fleet.DigestReader(iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a reader that fails was answered with %v", err)
	}
}

func TestDigestCheck(t *testing.T) {
	if err := abc.Check([]byte("abc")); err != nil {
		t.Error(err)
	}
	for _, other := range []string{"", "abd", "abc\n"} {
		if err := abc.Check([]byte(other)); !errors.Is(err, fleet.ErrDigest) {
			t.Errorf("Check(%q) = %v, want ErrDigest", other, err)
		}
	}
	if err := fleet.Digest("").Check(nil); !errors.Is(err, fleet.ErrDigest) {
		t.Errorf("the zero digest matched no content: %v", err)
	}
}

func TestDigestValidate(t *testing.T) {
	tests := []struct {
		digest fleet.Digest
		ok     bool
		reason string
	}{
		{abc, true, "the form of the OCI image specification"},
		{"", false, "the zero value names nothing"},
		{"sha256:", false, "no digits name nothing"},
		{abc[:70], false, "a digit is missing"},
		{abc + "0", false, "a digit is too many"},
		{fleet.Digest(strings.ToUpper(string(abc))), false, "the algorithm is lower-case"},
		{"sha256:" + fleet.Digest(strings.ToUpper(string(abc[7:]))), false, "two spellings of one digest would be two files"},
		{"sha512:" + abc[7:], false, "no other algorithm is verified"},
		{"sha256:../../../../../../../../../../../../../../../../../../../../etc/p", false, "the digits become a file name"},
		{"sha256:" + abc[7:70] + "\n", false, "a line break is no digit"},
	}
	for _, tt := range tests {
		err := tt.digest.Validate()
		if (err == nil) != tt.ok {
			t.Errorf("Validate(%q) = %v: %s", tt.digest, err, tt.reason)
		}
		if err != nil && !errors.Is(err, fleet.ErrDigest) {
			t.Errorf("Validate(%q): error does not wrap ErrDigest: %v", tt.digest, err)
		}
	}
	if got := abc.Hex(); got != string(abc[7:]) {
		t.Errorf("Hex() = %s", got)
	}
	if got := abc.Short(); got != "ba7816bf8f01" {
		t.Errorf("Short() = %s", got)
	}
	if got := fleet.Digest("sha256:ab").Short(); got != "ab" {
		t.Errorf("Short() of a malformed digest = %q", got)
	}
}

// TestBucketsOfLatency holds bounds and phases to what the gateway and the status depend on.
func TestBucketsOfLatency(t *testing.T) {
	bounds := fleet.LatencyBounds()
	for i := 1; i < len(bounds); i++ {
		if bounds[i] <= bounds[i-1] {
			t.Errorf("bound %d (%v) is not above the one before (%v)", i, bounds[i], bounds[i-1])
		}
	}
	bounds[0] = -1
	if fleet.LatencyBounds()[0] == -1 {
		t.Error("a caller can change everybody's bounds")
	}
	for _, p := range []fleet.Phase{fleet.PhasePending, fleet.PhaseFetching, fleet.PhaseStarting, fleet.PhaseBackOff, fleet.PhaseFailed, fleet.PhaseStopping, ""} {
		if p.Healthy() {
			t.Errorf("phase %q counts as healthy", p)
		}
	}
	if !fleet.PhaseRunning.Healthy() {
		t.Error("a running app does not count as healthy")
	}
}
