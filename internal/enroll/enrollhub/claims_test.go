package enrollhub

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/hub"
)

func TestClaimEnded(t *testing.T) {
	made := time.Unix(1_800_000_000, 0)
	claim := func(decision string, admitted time.Duration) *v1alpha1.SiteClaim {
		c := &v1alpha1.SiteClaim{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made)}, Spec: v1alpha1.SiteClaimSpec{Decision: decision}}
		if admitted > 0 {
			at := metav1.NewTime(made.Add(admitted))
			c.Status.AdmittedAt = &at
		}
		return c
	}
	const day = 24 * time.Hour
	tests := []struct {
		claim *v1alpha1.SiteClaim
		after time.Duration
		want  bool
		why   string
	}{
		{claim(v1alpha1.ClaimPending, 0), 6 * day, false, "somebody may still look"},
		{claim(v1alpha1.ClaimPending, 0), 8 * day, true, "a machine that still asks has a new one at once"},
		{claim(v1alpha1.ClaimDenied, 0), 29 * day, false, "it would ask again"},
		{claim(v1alpha1.ClaimDenied, 0), 31 * day, true, "bounded"},
		{claim(v1alpha1.ClaimApproved, 0), 400 * day, false, "its box lies in a store"},
		{claim(v1alpha1.ClaimApproved, 9*day), 9*day + time.Hour, false, "its answer may have been lost"},
		{claim(v1alpha1.ClaimApproved, 9*day), 11 * day, true, "it is a member now"},
	}
	for _, tt := range tests {
		if got := claimEnded(tt.claim, made.Add(tt.after)); got != tt.want {
			t.Errorf("%s after %v has ended: %v, want %v: %s", tt.claim.Spec.Decision, tt.after, got, tt.want, tt.why)
		}
	}
}

// testClaims keeps claims and codes in a real API.
func testClaims(t *testing.T, c client.Client) {
	ctx := t.Context()
	store := &siteClaims{cached: c, fresh: c, writer: c}
	now := time.Unix(1_800_000_000, 0)
	code := CodeRecord{ID: enroll.NewID(), Hash: [32]byte{1, 2}, Expires: now.Add(time.Hour).UTC(), Max: 1}
	noErr(t, store.createCode(ctx, code))
	if got, err := store.Code(ctx, code.ID); err != nil || got != code {
		t.Errorf("the code is kept as %+v, %v; want %+v", got, err, code)
	}
	if _, err := store.Code(ctx, enroll.NewID()); !errors.Is(err, ErrUnknown) {
		t.Errorf("a code that is none: %v", err)
	}
	member := newMember(t, "shop-1")
	claim := Claim{Name: claimName(member.Key), Code: code.ID, Key: member.Key, Hostname: "box", From: "192.0.2.1", Decision: v1alpha1.ClaimPending}
	made, err := store.Enqueue(ctx, claim, code)
	noErr(t, err)
	got, err := store.Claim(ctx, claim.Name)
	if err != nil || !got.Key.Equal(member.Key) || got.Hostname != "box" || got.Decision != v1alpha1.ClaimPending || got.Record != made.Record {
		t.Errorf("the claim is kept as %+v, %v", got, err)
	}
	other := newMember(t, "shop-1")
	second := Claim{Name: claimName(other.Key), Code: code.ID, Key: other.Key, Decision: v1alpha1.ClaimPending}
	if _, err := store.Enqueue(ctx, second, code); !errors.Is(err, ErrFull) {
		t.Errorf("one more than the code may have: %v", err)
	}
	made.Member, made.Admitted = "m-1", now
	noErr(t, store.Use(ctx, made))
	if err := store.Use(ctx, made); !errors.Is(err, ErrChanged) {
		t.Errorf("used twice from one reading: %v", err)
	}

	// Nothing goes early; in the end claim and code do.
	noErr(t, store.sweep(ctx, now.Add(time.Hour)))
	if _, err := store.Claim(ctx, claim.Name); err != nil {
		t.Errorf("a claim went early: %v", err)
	}
	noErr(t, store.sweep(ctx, now.Add(30*24*time.Hour)))
	if _, err := store.Claim(ctx, claim.Name); !errors.Is(err, ErrUnknown) {
		t.Errorf("an old claim: %v", err)
	}
	var secret corev1.Secret
	if err := c.Get(ctx, client.ObjectKey{Namespace: hub.SystemNamespace, Name: codePrefix + code.ID}, &secret); !apierrors.IsNotFound(err) {
		t.Errorf("an old code: %v", err)
	}
	// What a person may not write.
	for why, bad := range map[string]v1alpha1.SiteClaimSpec{
		"names its site": {Decision: v1alpha1.ClaimApproved, Request: v1alpha1.SiteClaimRequest{Code: "c", PublicKey: strings.Repeat("a", 64)}},
		"publicKey":      {Decision: v1alpha1.ClaimPending, Request: v1alpha1.SiteClaimRequest{Code: "c", PublicKey: "x"}},
		"decision":       {Decision: "Perhaps", Request: v1alpha1.SiteClaimRequest{Code: "c", PublicKey: strings.Repeat("a", 64)}},
	} {
		err := c.Create(ctx, &v1alpha1.SiteClaim{ObjectMeta: metav1.ObjectMeta{Name: "c-bad"}, Spec: bad})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), why) {
			t.Errorf("%+v: %v, want it refused with %q", bad, err, why)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"box-1": "box-1", "a\x1b[2Jb\nc": "a[2Jbc", "\xff\xfeé": "é", strings.Repeat("x", 100): strings.Repeat("x", 10),
	} {
		if got := printable(in, 10); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
