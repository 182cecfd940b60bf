package enroll_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/wire"
)

// reaches checks that a member's new connections to port and bus are good.
func reaches(t *testing.T, when string, id *enrollsite.Identity) {
	t.Helper()
	if status, body := whoAmI(t, id); status != http.StatusOK {
		t.Errorf("%s: the hub answers site %s with %d %s", when, id.Site(), status, body)
	}
	up := make(chan error, 100)
	dial(t, natsbus.Options{
		URLs: id.BusURLs(), TLS: id.TLSConfig(), Credentials: id.Credentials, Sign: id.Sign,
		InboxPrefix: wire.InboxPrefix(id.Site(), id.Member()),
		OnLink:      func(connected bool, err error) { up <- err },
	})
	if err := <-up; err != nil {
		t.Errorf("%s: the bus refuses site %s: %v", when, id.Site(), err)
	}
}

// TestRotation takes the steps with a member that renews between them, one that is away, and ones that join.
func TestRotation(t *testing.T) {
	h := startHub(t)
	o := siteOptions(t)
	early := h.token(t, "shop-2")
	online, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
	must(t, err)
	away := h.join(t, "shop-3")

	must(t, h.authority.Add())
	reaches(t, "added, before it renewed", online)
	must(t, online.Renew(t.Context()))
	if r := online.Report(); len(r.Authorities) != 2 || !slices.Contains(r.Authorities, r.Authority) {
		t.Errorf("after a renewal it reports %+v", r)
	}
	reaches(t, "added", online)
	between := h.token(t, "shop-4")
	joined := h.join(t, "shop-5")
	if r := joined.Report(); len(r.Authorities) != 2 {
		t.Errorf("a member that joins now trusts %v", r.Authorities)
	}

	must(t, h.authority.Use())
	reaches(t, "used, with the old certificate", online)
	reaches(t, "used, with the old certificate", joined)
	reopened, err := enrollsite.Open(o) // the agent starts again
	must(t, err)
	reaches(t, "used, after a restart of the agent", reopened)
	before := online.Report().Authority
	must(t, online.Renew(t.Context()))
	if r := online.Report(); r.Authority == before || len(r.Authorities) != 2 {
		t.Errorf("after use and a renewal it reports %+v", r)
	}
	reaches(t, "used", online)
	if err := away.Renew(t.Context()); !errors.Is(err, enrollsite.ErrNotTheHub) {
		t.Errorf("who was away for it: %v", err)
	}
	late, err := enrollsite.Join(t.Context(), siteOptions(t), between)
	if err != nil {
		t.Fatalf("a token of between add and use must still work: %v", err)
	}
	reaches(t, "joined after use with an earlier token", late)
	if _, err := enrollsite.Join(t.Context(), siteOptions(t), early); !errors.Is(err, enrollsite.ErrNotTheHub) {
		t.Errorf("a token of before add: %v", err)
	}

	must(t, h.authority.Drop())
	if status, _ := whoAmI(t, joined); status == http.StatusOK {
		t.Error("a certificate of the dropped authority is taken")
	}
	must(t, joined.Renew(t.Context())) // by its key
	must(t, online.Renew(t.Context()))
	for _, id := range []*enrollsite.Identity{online, joined, late} {
		if id != late {
			if r := id.Report(); len(r.Authorities) != 1 || r.Authorities[0] != r.Authority {
				t.Errorf("after drop and a renewal it reports %+v", r)
			}
		}
		reaches(t, "dropped", id)
	}
	again := h.join(t, "shop-3")
	reaches(t, "joined anew", again)
}

// TestAuthoritiesOfAHubAreChecked: what a hub says to trust is checked, although it comes from the hub.
func TestAuthoritiesOfAHubAreChecked(t *testing.T) {
	h, other := startHub(t), startHub(t)
	notOne := frozenConfig(t, other.authority.NewServing("127.0.0.1")).Certificates[0].Certificate[0]
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: notOne}))
	own := string(h.authority.PEM())
	tests := []struct{ reason, authorities string }{
		{"another hub's alone", string(other.authority.PEM())},
		{"more than there can be", strings.Repeat(own, wire.MaxAuthorities+1)},
		{"what is no authority", own + leaf},
		{"nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
		{"nothing in it", "nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			// A hub of the right authority whose answers are changed on its own machine.
			change := serve(t, h.authority.NewServing("127.0.0.1").TLSConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				recorded := &recorder{header: http.Header{}}
				mux := http.NewServeMux()
				h.Register(mux)
				mux.ServeHTTP(recorded, r)
				var response wire.EnrollResponse
				if recorded.status == http.StatusOK && json.Unmarshal(recorded.body.Bytes(), &response) == nil {
					response.Authorities = tt.authorities
					body, _ := json.Marshal(response)
					recorded.body = *bytes.NewBuffer(body)
				}
				w.WriteHeader(recorded.status)
				w.Write(recorded.body.Bytes())
			}))
			token := h.token(t, "shop-1")
			token.URLs = []string{"https://" + change}
			if _, err := enrollsite.Join(t.Context(), siteOptions(t), token); !errors.Is(err, wire.ErrMessage) {
				t.Errorf("%v", err)
			}
		})
	}
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// TestTokensOfBefore reads tokens of earlier releases, and shows earlier agents what they would see in ours.
func TestTokensOfBefore(t *testing.T) {
	for name, next := range map[string][32]byte{"token.txt": {}, "token-next.txt": sha256.Sum256([]byte("next"))} {
		text, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		must(t, err)
		token, err := enroll.ParseToken(string(text))
		must(t, err)
		if token.NextCA != next || token.URLs[0] != "https://hub.example.com:7443" || token.CA != sha256.Sum256([]byte("ca")) {
			t.Errorf("%s is read as %v, %x, %x", name, token.URLs, token.CA, token.NextCA)
		}
		if token.Text() != strings.TrimSpace(string(text)) {
			t.Errorf("%s is written as %s", name, token.Text())
		}
	}
}

// stepAs asks for a step, or with none for the list.
func (w *wholeHub) stepAs(t *testing.T, admin bool, step enroll.AuthorityStep) (int, enroll.AuthoritiesAnswer, string) {
	t.Helper()
	var info corev1.ConfigMap
	must(t, w.objects.Get(t.Context(), client.ObjectKey{Namespace: hub.SystemNamespace, Name: hub.InfoConfigMap}, &info))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(info.Data["ca"])) // what people trust now
	config := &tls.Config{RootCAs: roots}
	if admin {
		pair, err := clientCertificate(w.api)
		must(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	var res *http.Response
	var err error
	if step.Step == "" {
		res, err = c.Get(w.url + enroll.PathAuthorities)
	} else {
		body, _ := json.Marshal(step)
		res, err = c.Post(w.url+enroll.PathAuthorities, "application/json", bytes.NewReader(body))
	}
	must(t, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	must(t, err)
	var answer enroll.AuthoritiesAnswer
	if res.StatusCode == http.StatusOK {
		must(t, json.Unmarshal(data, &answer))
	}
	return res.StatusCode, answer, string(data)
}

// reporter speaks for a member as its agent does.
func reporter(t *testing.T, id *enrollsite.Identity) (report func()) {
	t.Helper()
	bus := dial(t, natsbus.Options{
		URLs: id.BusURLs(), TLS: id.TLSConfig(), Credentials: id.Credentials, Sign: id.Sign, InboxPrefix: wire.InboxPrefix(id.Site(), id.Member()),
	})
	sequence := uint64(0)
	return func() {
		t.Helper()
		part, err := json.Marshal(id.Report())
		must(t, err)
		sequence++
		data, err := wire.Report{Site: id.Site(), Member: id.Member(), Epoch: "e", Sequence: sequence, Modules: map[string]json.RawMessage{enroll.SectionName: part}}.Encode()
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		must(t, bus.AwaitConnected(ctx))
		_, err = bus.Put(ctx, wire.ReportSubject(id.Site(), id.Member()), data, wire.AnyRevision)
		must(t, err)
	}
}

// TestRotationAtARealHub asks as people do, and is refused with names until the sites have said what they know.
func TestRotationAtARealHub(t *testing.T) {
	w := startWholeHub(t)
	ctx := t.Context()
	identities := map[string]*enrollsite.Identity{}
	reports := map[string]func(){}
	for _, name := range []string{"shop-1", "shop-2", "empty"} {
		must(t, w.objects.Create(ctx, &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}}))
		if name == "empty" {
			continue
		}
		var text string
		eventually(t, "a token", func() bool {
			status, answer := w.askToken(t, name, true, "{}")
			text = answer.Token
			return status == http.StatusCreated
		})
		token, err := enroll.ParseToken(text)
		must(t, err)
		identities[name], err = enrollsite.Join(ctx, siteOptions(t), token)
		must(t, err)
		reports[name] = reporter(t, identities[name])
		reports[name]()
	}
	if status, _, _ := w.stepAs(t, false, enroll.AuthorityStep{Step: enroll.StepAdd}); status != http.StatusUnauthorized {
		t.Errorf("a step by nobody: %d", status)
	}
	take := func(step string, force bool, wantStatus int, says ...string) enroll.AuthoritiesAnswer {
		t.Helper()
		status, answer, body := w.stepAs(t, true, enroll.AuthorityStep{Step: step, Force: force})
		if status != wantStatus {
			t.Fatalf("%s: %d %s", step, status, body)
		}
		for _, s := range says {
			if !strings.Contains(body, s) {
				t.Errorf("%s does not say %q: %s", step, s, body)
			}
		}
		return answer
	}
	take("turn", false, http.StatusBadRequest, "want add, use or drop")
	take(enroll.StepUse, false, http.StatusBadRequest, "add one first")
	take(enroll.StepAdd, false, http.StatusOK)
	take(enroll.StepUse, false, http.StatusBadRequest, "2 sites", "shop-1", "shop-2")
	must(t, identities["shop-1"].Renew(ctx))
	reports["shop-1"]()
	knows := func(site string, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("Site %s says that it knows %d authorities", site, n), func() bool {
			var s v1alpha1.Site
			must(t, w.objects.Get(ctx, client.ObjectKey{Name: site}, &s))
			return len(s.Status.Authorities) == n && slices.Contains(s.Status.Authorities, s.Status.Authority)
		})
	}
	knows("shop-1", 2)
	knows("shop-2", 1)
	take(enroll.StepUse, false, http.StatusBadRequest, "1 sites (shop-2)")
	must(t, identities["shop-2"].Renew(ctx))
	reports["shop-2"]()
	knows("shop-2", 2)
	if list := take(enroll.StepUse, false, http.StatusOK); len(list.CutOff) != 0 || list.Authorities[1].State != enroll.AuthorityPrevious || len(list.Authorities[0].Known) != 2 {
		t.Errorf("after use: %+v", list)
	}
	take(enroll.StepDrop, false, http.StatusBadRequest, "shop-1", "shop-2")
	must(t, identities["shop-1"].Renew(ctx))
	reports["shop-1"]()
	eventually(t, "the hub knows who renewed", func() bool {
		_, list, _ := w.stepAs(t, true, enroll.AuthorityStep{})
		return slices.Equal(list.Authorities[0].Signed, []string{"shop-1"})
	})
	take(enroll.StepDrop, false, http.StatusBadRequest, "1 sites (shop-2)")
	if list := take(enroll.StepDrop, true, http.StatusOK); !slices.Equal(list.CutOff, []string{"shop-2"}) || len(list.Authorities) != 1 {
		t.Errorf("after a forced drop: %+v", list)
	}
	if status, list, _ := w.stepAs(t, true, enroll.AuthorityStep{}); status != http.StatusOK || len(list.Authorities) != 1 {
		t.Errorf("people trust what is published: %d %+v", status, list)
	}
}
