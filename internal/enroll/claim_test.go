package enroll_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/wire"
)

// claimCode asks for a claim code as the administrator.
func (w *wholeHub) claimCode(t *testing.T, limit int) enroll.ClaimCode {
	t.Helper()
	status, body := w.post(t, enroll.PathClaimCodes, "", enroll.ClaimCodeRequest{TTLSeconds: 3600, Max: limit})
	var answer enroll.ClaimCodeAnswer
	must(t, json.Unmarshal(body, &answer))
	if status != http.StatusCreated {
		t.Fatalf("a claim code: %d %s", status, body)
	}
	code, err := enroll.ParseClaimCode(answer.Code)
	must(t, err)
	return code
}

// box is a machine that asks with a claim code until it is in.
type box struct {
	done chan struct{}
	id   *enrollsite.Identity
	err  error
	stop context.CancelFunc
}

func startBox(t *testing.T, o enrollsite.Options, code enroll.ClaimCode) *box {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := &box{done: make(chan struct{}), stop: cancel}
	go func() {
		defer close(b.done)
		b.id, b.err = enrollsite.Claim(ctx, o, code)
	}()
	t.Cleanup(func() { cancel(); <-b.done })
	return b
}

func (b *box) joined(t *testing.T, site string) *enrollsite.Identity {
	t.Helper()
	select {
	case <-b.done:
	case <-time.After(patience):
		t.Fatal("it still waits")
	}
	must(t, b.err)
	if string(b.id.Site()) != site {
		t.Errorf("it is site %s, want %s", b.id.Site(), site)
	}
	wantKnown(t, b.id)
	return b.id
}

func (b *box) waits(t *testing.T) {
	t.Helper()
	select {
	case <-b.done:
		t.Fatalf("it waits no more: %v, %v", b.id, b.err)
	default:
	}
}

func (w *wholeHub) claims(t *testing.T) []v1alpha1.SiteClaim {
	t.Helper()
	var list v1alpha1.SiteClaimList
	must(t, w.objects.List(t.Context(), &list))
	return list.Items
}

// claimOf waits for the pending or decided claim of a machine.
func (w *wholeHub) claimOf(t *testing.T, fingerprint string, n int) (found []v1alpha1.SiteClaim) {
	t.Helper()
	eventually(t, "the claim is in the queue", func() bool {
		found = nil
		for _, c := range w.claims(t) {
			if c.Spec.Request.Fingerprint == fingerprint {
				found = append(found, c)
			}
		}
		return len(found) == n
	})
	return found
}

func (w *wholeHub) decide(t *testing.T, name, decision, site string, replace bool) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	eventually(t, "the decision is written", func() bool {
		var c v1alpha1.SiteClaim
		must(t, w.objects.Get(t.Context(), client.ObjectKey{Name: name}, &c))
		c.Spec.Decision, c.Spec.Site, c.Spec.Replace = decision, site, replace
		last = w.objects.Update(t.Context(), &c)
		return last == nil
	})
}

func machineNumber(n int) string { return fmt.Sprintf("%032x", n+1) }

func (w *wholeHub) makeSite(t *testing.T, name, fingerprint string) {
	t.Helper()
	must(t, w.objects.Create(t.Context(), &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SiteSpec{Fingerprint: fingerprint}}))
}

func TestClaims(t *testing.T) {
	w := startWholeHub(t)
	eventually(t, "the administrator is known", func() bool {
		status, _ := w.post(t, enroll.PathTokens, "", sitesOf())
		return status == http.StatusBadRequest
	})
	code := w.claimCode(t, 0)

	t.Run("a machine waits until it is approved", func(t *testing.T) {
		o := optionsOf(t, machineNumber(1))
		o.Hardware.Hostname, o.Hardware.Arch = "box\x1b[31m-1", "arm64"
		first := startBox(t, o, code)
		c := w.claimOf(t, machineNumber(1), 1)[0]
		if r := c.Spec.Request; r.Hostname != "box[31m-1" || r.Arch != "arm64" || r.From != "127.0.0.1" || c.Spec.Decision != v1alpha1.ClaimPending {
			t.Errorf("the claim is %+v", c.Spec)
		}
		first.waits(t)
		// Restarted, it keeps its place.
		first.stop()
		<-first.done
		again := startBox(t, o, code)
		w.makeSite(t, "shop-1", "")
		w.decide(t, c.Name, v1alpha1.ClaimApproved, "shop-1", false)
		id := again.joined(t, "shop-1")
		after := w.claimOf(t, machineNumber(1), 1)[0]
		if after.Status.Member != string(id.Member()) || after.Status.AdmittedAt == nil {
			t.Errorf("the claim says %+v, the machine is %s", after.Status, id.Member())
		}
		// What the machine said does not change.
		after.Spec.Request.Fingerprint = machineA
		if err := w.objects.Update(t.Context(), &after); err == nil {
			t.Error("the request of a claim was changed")
		}
	})
	t.Run("a machine that a site names is approved at once", func(t *testing.T) {
		w.makeSite(t, "shop-2", machineNumber(2))
		startBox(t, optionsOf(t, machineNumber(2)), code).joined(t, "shop-2")
	})
	t.Run("a site made later takes the machine that waits", func(t *testing.T) {
		b := startBox(t, optionsOf(t, machineNumber(3)), code)
		w.claimOf(t, machineNumber(3), 1)
		w.makeSite(t, "shop-3", machineNumber(3))
		b.joined(t, "shop-3")
	})
	t.Run("who says to be the machine of a site that has one waits", func(t *testing.T) {
		thief := startBox(t, optionsOf(t, machineNumber(2)), code)
		claims := w.claimOf(t, machineNumber(2), 2)
		for _, c := range claims {
			if c.Status.Member != "" {
				continue
			}
			if c.Spec.Decision != v1alpha1.ClaimPending {
				t.Errorf("the second is %s", c.Spec.Decision)
			}
			// An approval that does not say replace takes nobody's place.
			w.decide(t, c.Name, v1alpha1.ClaimApproved, "shop-2", false)
			_, err := enrollsite.Join(t.Context(), siteOptions(t), code.Token)
			wantRefused(t, err, wire.RefusedToken) // a claim code is no join token
			thief.waits(t)
			w.decide(t, c.Name, v1alpha1.ClaimApproved, "shop-2", true)
		}
		thief.joined(t, "shop-2")
	})
	t.Run("two that say to be one free machine both wait", func(t *testing.T) {
		a := startBox(t, optionsOf(t, machineNumber(5)), code)
		b := startBox(t, optionsOf(t, machineNumber(5)), code)
		w.claimOf(t, machineNumber(5), 2)
		w.makeSite(t, "shop-5", machineNumber(5))
		for _, c := range w.claimOf(t, machineNumber(5), 2) {
			if c.Spec.Decision != v1alpha1.ClaimPending {
				t.Errorf("claim %s is %s", c.Name, c.Spec.Decision)
			}
		}
		a.waits(t)
		b.waits(t)
	})
	t.Run("a code that nobody knows", func(t *testing.T) {
		forged := enroll.ClaimCode{Token: enroll.NewToken(code.Token.URLs, code.Token.CA, code.Token.Issued)}
		_, err := enrollsite.Claim(t.Context(), optionsOf(t, machineNumber(6)), forged)
		wantRefused(t, err, wire.RefusedToken)
		forged.Token.ID = code.Token.ID // another secret
		_, err = enrollsite.Claim(t.Context(), optionsOf(t, machineNumber(6)), forged)
		wantRefused(t, err, wire.RefusedToken)
		for _, c := range w.claims(t) {
			if c.Spec.Request.Fingerprint == machineNumber(6) {
				t.Error("it is in the queue")
			}
		}
	})
	t.Run("the queue of a code is bounded", func(t *testing.T) {
		small := w.claimCode(t, 2)
		for i := range 5 {
			startBox(t, optionsOf(t, machineNumber(100+i)), small)
		}
		count := func() (n int) {
			for _, c := range w.claims(t) {
				if c.Spec.Request.Code == small.Token.ID {
					n++
				}
			}
			return n
		}
		eventually(t, "the queue fills", func() bool { return count() == 2 })
		// One that is asked for after it was full is refused for now.
		o := optionsOf(t, machineNumber(200))
		log := &logBuffer{}
		o.Log = log.logger()
		startBox(t, o, small)
		eventually(t, "the machine says why it is not in", func() bool { return strings.Contains(log.String(), "the queue of claims is full") })
		if n := count(); n != 2 {
			t.Errorf("%d claims with a code for 2", n)
		}
	})
	t.Run("a denied machine is told", func(t *testing.T) {
		log := &logBuffer{}
		o := optionsOf(t, machineNumber(7))
		o.Log = log.logger()
		b := startBox(t, o, code)
		w.decide(t, w.claimOf(t, machineNumber(7), 1)[0].Name, v1alpha1.ClaimDenied, "", false)
		eventually(t, "the machine says so", func() bool { return strings.Contains(log.String(), "was denied") })
		b.waits(t)
	})
	t.Run("who may make codes", func(t *testing.T) {
		ben := w.person(t, "carl", rbacv1.PolicyRule{APIGroups: []string{v1alpha1.Group}, Resources: []string{"siteclaims"}, Verbs: []string{"*"}})
		status, body := w.post(t, enroll.PathClaimCodes, ben, enroll.ClaimCodeRequest{TTLSeconds: 3600})
		if status != http.StatusForbidden {
			t.Errorf("who may write claims but make no codes: %d %s", status, body)
		}
		for _, bad := range []enroll.ClaimCodeRequest{{}, {TTLSeconds: 1 << 30}, {TTLSeconds: 3600, Max: -1}, {TTLSeconds: 3600, Max: enroll.MaxClaims + 1}} {
			if status, _ := w.post(t, enroll.PathClaimCodes, "", bad); status != http.StatusBadRequest {
				t.Errorf("%+v: %d", bad, status)
			}
		}
	})
}

func TestClaimCodeText(t *testing.T) {
	token := enroll.NewToken([]string{"https://hub.example.com:7443"}, [32]byte{1}, time.Unix(1_800_000_000, 0))
	code := enroll.ClaimCode{Token: token}
	again, err := enroll.ParseClaimCode(" " + code.Text() + "\n")
	if err != nil || again.Token.ID != token.ID || again.Token.Secret != token.Secret {
		t.Errorf("read back as %v, %v", again, err)
	}
	if _, err := enroll.ParseToken(code.Text()); err == nil {
		t.Error("a claim code is taken for a join token")
	}
	if _, err := enroll.ParseClaimCode(token.Text()); err == nil {
		t.Error("a join token is taken for a claim code")
	}
	if s := fmt.Sprintf("%v %+v %#v", code, code, code.Token.Secret); strings.Contains(s, token.Secret.Wire()) {
		t.Errorf("a formatting verb tells the secret: %s", s)
	}
}
