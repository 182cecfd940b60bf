package enroll_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

// wholeHub is a hub with nothing but enrolment, on a real API server and a real bus.
type wholeHub struct {
	objects client.Client
	api     *rest.Config
	url     string
	ca      []byte
	// gatewayCA is the authority of gateways.
	gatewayCA []byte
}

func startWholeHub(t *testing.T) *wholeHub {
	t.Helper()
	api := kubetest.Start(t)
	bus, err := natsserver.Start(natsserver.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(bus.Stop)
	credential, sign, err := bus.IssueHub()
	must(t, err)
	busClient := dial(t, natsbus.Options{InProcess: bus.InProcessConn, Credentials: func() (string, error) { return credential, nil }, Sign: sign})
	store, err := natsbus.NewStore(busClient)
	must(t, err)
	must(t, store.EnsureStreams(t.Context(), 1))
	authority, err := enrollhub.OpenAuthority(t.TempDir(), time.Now)
	must(t, err)
	gateways, err := enrollhub.OpenGatewayAuthority(t.TempDir(), time.Now)
	must(t, err)
	feature := enrollhub.NewFeature(enrollhub.FeatureOptions{Issuer: bus, Authority: authority, Gateways: gateways})
	running := hubtest.Start(t, hubtest.Options{
		API: api.Config, Bus: busClient, Store: store, TLS: authority.NewServing("127.0.0.1").TLSConfig(), CA: authority.PEM(),
		GatewayCA: gateways.PEM(), Features: []hub.Feature{feature, whoAmIFeature{feature, bus}},
	})
	return &wholeHub{objects: running.Client, api: api.Config, url: running.URL, ca: running.CA, gatewayCA: gateways.PEM()}
}

// whoAmIFeature serves the bus, and tells members who they are.
type whoAmIFeature struct {
	enroll *enrollhub.Feature
	bus    *natsserver.Server
}

func (whoAmIFeature) Name() string { return "whoami" }

func (f whoAmIFeature) Setup(_ context.Context, h *hub.Host) error {
	h.Public.Handle(wire.PathBus, f.bus.WebSocketHandler())
	h.Public.HandleFunc(pathWhoAmI, func(w http.ResponseWriter, r *http.Request) {
		site, member, err := f.enroll.Member(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		w.Write([]byte(string(site) + "/" + string(member)))
	})
	return nil
}

// askToken asks for a token as the administrator, or as nobody.
func (w *wholeHub) askToken(t *testing.T, site string, asAdmin bool, body string) (status int, answer enroll.TokenAnswer) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca)
	config := &tls.Config{RootCAs: roots}
	if asAdmin {
		pair, err := clientCertificate(w.api)
		must(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	path := strings.Replace(enroll.PathToken, "{site}", site, 1)
	res, err := (&http.Client{Transport: transport}).Post(w.url+path, "application/json", bytes.NewReader([]byte(body)))
	must(t, err)
	defer res.Body.Close()
	must(t, json.NewDecoder(res.Body).Decode(&answer))
	return res.StatusCode, answer
}

func clientCertificate(c *rest.Config) (tls.Certificate, error) {
	if len(c.CertData) > 0 {
		return tls.X509KeyPair(c.CertData, c.KeyData)
	}
	return tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
}

// eventually tries until ok, for what the hub does in its own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func TestSiteLifeAtARealHub(t *testing.T) {
	w := startWholeHub(t)
	ctx := t.Context()
	site := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "shop-1"}}
	// The hub learns the cluster's client authority only after it is ready.
	eventually(t, "a token is refused for a site that is not there", func() bool {
		status, _ := w.askToken(t, "shop-1", true, "{}")
		return status == http.StatusNotFound
	})
	must(t, w.objects.Create(ctx, site))
	if status, answer := w.askToken(t, "shop-1", false, "{}"); status != http.StatusUnauthorized || answer.Token != "" {
		t.Errorf("a token for nobody: %d", status)
	}
	if status, _ := w.askToken(t, "shop-1", true, `{"ttlSeconds":99999999}`); status != http.StatusBadRequest {
		t.Errorf("a token for ever: %d", status)
	}
	join := func() *enrollsite.Identity {
		t.Helper()
		status, answer := w.askToken(t, "shop-1", true, "{}")
		if status != http.StatusCreated {
			t.Fatalf("a token for the administrator: %d", status)
		}
		token, err := enroll.ParseToken(answer.Token)
		must(t, err)
		o := siteOptions(t)
		o.Serving = true
		id, err := enrollsite.Join(ctx, o, token)
		must(t, err)
		if !bytes.Equal(id.GatewayCA(), w.gatewayCA) {
			t.Errorf("its gateway's certificate is of %q", id.GatewayCA())
		}
		wantKnown(t, id)
		if _, err := enrollsite.Join(ctx, siteOptions(t), token); err == nil {
			t.Error("the token was used twice")
		}
		return id
	}
	var info corev1.ConfigMap
	must(t, w.objects.Get(ctx, client.ObjectKey{Namespace: hub.SystemNamespace, Name: hub.InfoConfigMap}, &info))
	if info.Data["gatewayCA"] != string(w.gatewayCA) || info.Data["ca"] != string(w.ca) {
		t.Errorf("published are the authorities %q and %q", info.Data["gatewayCA"], info.Data["ca"])
	}
	first := join()
	second := join()
	wantRefused(t, first.Renew(ctx), wire.RefusedRevoked)
	must(t, second.Renew(ctx))

	// A person revokes, with nothing but the Site.
	lost := make(chan error, 100)
	dial(t, natsbus.Options{
		URLs: second.BusURLs(), TLS: second.TLSConfig(), Credentials: second.Credentials, Sign: second.Sign,
		InboxPrefix: wire.InboxPrefix(second.Site(), second.Member()),
		OnLink: func(connected bool, err error) {
			if !connected && errors.Is(err, wire.ErrForbidden) {
				lost <- err
			}
		},
	})
	eventually(t, "the revocation is written", func() bool {
		must(t, w.objects.Get(ctx, client.ObjectKeyFromObject(site), site))
		site.Spec.RevokedMembers = append(site.Spec.RevokedMembers, string(second.Member()))
		return w.objects.Update(ctx, site) == nil
	})
	select {
	case <-lost:
	case <-time.After(5 * time.Second):
		t.Error("a revoked member is still on the bus after 5 s")
	}
	wantRefused(t, second.Renew(ctx), wire.RefusedRevoked)
	if status, _ := whoAmI(t, second); status == http.StatusOK {
		t.Error("the certificate of a revoked member is taken")
	}

	third := join()
	must(t, w.objects.Delete(ctx, site))
	eventually(t, "a deleted site is refused", func() bool {
		var refused *enrollsite.RefusedError
		return errors.As(third.Renew(ctx), &refused) && refused.Reason == wire.RefusedUnknown
	})
}
