package enrollhub

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/kubetest"
)

// startAPI returns a client of a real API server that knows our kinds.
func startAPI(t *testing.T) client.Client {
	t.Helper()
	api := kubetest.Start(t)
	noErr(t, hub.InstallTypes(t.Context(), api.Config))
	scheme, err := hub.Scheme()
	noErr(t, err)
	c, err := client.New(api.Config, client.Options{Scheme: scheme})
	noErr(t, err)
	err = c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: hub.SystemNamespace}})
	if !apierrors.IsAlreadyExists(err) {
		noErr(t, err)
	}
	return c
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newMember(t *testing.T, site fleet.SiteName) Member {
	t.Helper()
	key, _, err := ed25519.GenerateKey(nil)
	noErr(t, err)
	return Member{
		Site: site, ID: fleet.MemberID("m-" + enroll.NewID()), Key: key,
		SealKey: make([]byte, sealKeySize), Enrolled: time.Unix(1_800_000_000, 0),
	}
}

func TestRecordsInKubernetes(t *testing.T) {
	c := startAPI(t)
	t.Run("members", func(t *testing.T) { testMembers(t, c) })
	t.Run("members at one moment", func(t *testing.T) { testMembersAtOnce(t, c) })
	t.Run("a token", func(t *testing.T) { testToken(t, c) })
	t.Run("a token at one moment", func(t *testing.T) { testTokenAtOnce(t, c) })
	t.Run("tokens that ended", func(t *testing.T) { testSweep(t, c) })
	t.Run("claims", func(t *testing.T) { testClaims(t, c) })
}

func makeSite(t *testing.T, c client.Client, name string) {
	t.Helper()
	noErr(t, c.Create(t.Context(), &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}}))
}

func testMembers(t *testing.T, c client.Client) {
	ctx := t.Context()
	members := &siteMembers{cached: c, fresh: c, writer: c}
	if _, err := members.Admit(ctx, newMember(t, "nowhere")); !errors.Is(err, ErrUnknown) {
		t.Errorf("a member of no site: %v", err)
	}
	makeSite(t, c, "shop-1")
	first := newMember(t, "shop-1")
	if replaced, err := members.Admit(ctx, first); err != nil || len(replaced) != 0 {
		t.Fatalf("the first replaces %v, %v", replaced, err)
	}
	got, err := members.Member(ctx, "shop-1", first.ID)
	noErr(t, err)
	if diff := cmp.Diff(first, got, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("kept differently (-want +got):\n%s", diff)
	}
	if replaced, err := members.Admit(ctx, first); err != nil || len(replaced) != 0 {
		t.Errorf("admitted again it replaces %v, %v", replaced, err)
	}
	if _, err := members.Member(ctx, "shop-1", "m-other"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown member: %v", err)
	}
	second := newMember(t, "shop-1")
	replaced, err := members.Admit(ctx, second)
	noErr(t, err)
	if len(replaced) != 1 || replaced[0].ID != first.ID || !replaced[0].Key.Equal(first.Key) {
		t.Errorf("the second replaces %v", replaced)
	}
	for id, want := range map[fleet.MemberID]bool{first.ID: true, second.ID: false} {
		if m, err := members.Member(ctx, "shop-1", id); err != nil || m.Revoked != want {
			t.Errorf("member %s: revoked %v, %v; want %v", id, m.Revoked, err, want)
		}
	}
	// A site that many machines served in turn stays within the bounds of its type.
	last := second
	for range maxMembers + 5 {
		last = newMember(t, "shop-1")
		_, err := members.Admit(ctx, last)
		noErr(t, err)
	}
	var site v1alpha1.Site
	noErr(t, c.Get(ctx, client.ObjectKey{Name: "shop-1"}, &site))
	if n := len(site.Status.Members); n > maxMembers {
		t.Errorf("it holds %d members", n)
	}
	if n := len(site.Spec.RevokedMembers); n > maxMembers {
		t.Errorf("it remembers %d revocations, of members that it has forgotten too", n)
	}
	if m, err := members.Member(ctx, "shop-1", last.ID); err != nil || m.Revoked {
		t.Errorf("the last member: %v, %v", m, err)
	}
}

// testMembersAtOnce admits many members at one moment: each try succeeds or says that the site changed,
// and one member remains.
func testMembersAtOnce(t *testing.T, c client.Client) {
	members := &siteMembers{cached: c, fresh: c, writer: c}
	makeSite(t, c, "busy")
	var wg sync.WaitGroup
	for range 10 {
		m := newMember(t, "busy")
		wg.Go(func() {
			for {
				_, err := members.Admit(t.Context(), m)
				if err == nil {
					return
				}
				if !errors.Is(err, ErrChanged) {
					t.Errorf("admit: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	var site v1alpha1.Site
	noErr(t, c.Get(t.Context(), client.ObjectKey{Name: "busy"}, &site))
	left := 0
	for _, m := range site.Status.Members {
		if !hub.Revoked(&site, m.ID) {
			left++
		}
	}
	if left != 1 {
		t.Errorf("%d members may connect, want one; revoked are %v", left, site.Spec.RevokedMembers)
	}
}

func newRecord() TokenRecord {
	token := enroll.NewToken(nil, [32]byte{}, time.Now())
	return TokenRecord{ID: token.ID, Hash: token.Secret.Hash(), Site: "shop-1", Expires: time.Now().Add(time.Hour).Truncate(time.Second)}
}

func testToken(t *testing.T, c client.Client) {
	ctx := t.Context()
	tokens := &secretTokens{fresh: c, writer: c}
	want := newRecord()
	noErr(t, tokens.Create(ctx, want))
	got, err := tokens.Token(ctx, want.ID)
	noErr(t, err)
	if got.Hash != want.Hash || got.Site != want.Site || !got.Expires.Equal(want.Expires) || len(got.UsedBy) != 0 {
		t.Errorf("kept as %+v, want %+v", got, want)
	}
	m := newMember(t, "shop-1")
	got.UsedBy, got.UsedAt, got.Member = m.Key, time.Unix(1_800_000_000, 0), m.ID
	stale := got
	noErr(t, tokens.Use(ctx, got))
	if err := tokens.Use(ctx, stale); !errors.Is(err, ErrChanged) {
		t.Errorf("used from an old record: %v", err)
	}
	used, err := tokens.Token(ctx, want.ID)
	noErr(t, err)
	if !used.UsedBy.Equal(m.Key) || used.Member != m.ID || !used.UsedAt.Equal(got.UsedAt) || used.Hash != want.Hash {
		t.Errorf("used it is kept as %+v", used)
	}
	for _, id := range []string{"unknown", "../../pods", "", "A B"} {
		if _, err := tokens.Token(ctx, id); !errors.Is(err, ErrUnknown) {
			t.Errorf("token %q: %v", id, err)
		}
	}
	// A Secret of another kind is no token, whatever its name.
	other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hub.SystemNamespace, Name: tokenPrefix + "other"}}
	noErr(t, c.Create(ctx, other))
	if _, err := tokens.Token(ctx, "other"); !errors.Is(err, ErrUnknown) {
		t.Errorf("another Secret as token: %v", err)
	}
}

// testTokenAtOnce uses one token from many hubs at one moment.
func testTokenAtOnce(t *testing.T, c client.Client) {
	tokens := &secretTokens{fresh: c, writer: c}
	record := newRecord()
	noErr(t, tokens.Create(t.Context(), record))
	read, err := tokens.Token(t.Context(), record.ID)
	noErr(t, err)
	var wg sync.WaitGroup
	won := make(chan string, 50)
	for i := range cap(won) {
		m := newMember(t, "shop-1")
		wg.Go(func() {
			mine := read
			mine.UsedBy, mine.UsedAt, mine.Member = m.Key, time.Now(), m.ID
			switch err := tokens.Use(t.Context(), mine); {
			case err == nil:
				won <- string(m.ID)
			case !errors.Is(err, ErrChanged):
				t.Errorf("user %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d used it", len(won))
	}
	got, err := tokens.Token(t.Context(), record.ID)
	noErr(t, err)
	if want := <-won; string(got.Member) != want {
		t.Errorf("it is used by %s, the winner is %s", got.Member, want)
	}
}

func testSweep(t *testing.T, c client.Client) {
	ctx := t.Context()
	tokens := &secretTokens{fresh: c, writer: c}
	old, young := newRecord(), newRecord()
	old.Expires = time.Now().Add(-time.Hour)
	noErr(t, tokens.Create(ctx, old))
	noErr(t, tokens.Create(ctx, young))
	other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hub.SystemNamespace, Name: fmt.Sprint("kept-", enroll.NewID())}}
	noErr(t, c.Create(ctx, other))
	noErr(t, tokens.Sweep(ctx, time.Now()))
	if _, err := tokens.Token(ctx, old.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := tokens.Token(ctx, young.ID); err != nil {
		t.Errorf("the young one: %v", err)
	}
	if err := c.Get(ctx, client.ObjectKeyFromObject(other), &corev1.Secret{}); err != nil {
		t.Errorf("another Secret: %v", err)
	}
}
