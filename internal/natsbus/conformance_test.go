package natsbus_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire/bustest"
)

func TestConformanceInProcess(t *testing.T) {
	bustest.Run(t, func(t testing.TB) bustest.Harness {
		h := startHub(t, natsserver.Options{})
		o := h.member(t, "shop-1", "m-1")
		o.InProcess = h.server.InProcessConn
		return h.harness(connect(t, o))
	})
}

func TestConformanceWebSocket(t *testing.T) {
	bustest.Run(t, func(t testing.TB) bustest.Harness {
		h := startHub(t, natsserver.Options{})
		o := h.member(t, "shop-1", "m-1")
		url, trust := h.serve(t)
		o.URLs, o.TLS = []string{url}, trust
		return h.harness(connect(t, o))
	})
}

func TestConformanceTLSListener(t *testing.T) {
	bustest.Run(t, func(t testing.TB) bustest.Harness {
		front := httptest.NewTLSServer(nil) // for its certificate
		t.Cleanup(front.Close)
		h := startHub(t, natsserver.Options{Listen: "127.0.0.1:0", TLS: front.TLS})
		o := h.member(t, "shop-1", "m-1")
		o.URLs, o.TLS = []string{"tlsfirst://" + h.server.TLSAddr().String()}, front.Client().Transport.(*http.Transport).TLSClientConfig
		return h.harness(connect(t, o))
	})
}

func (h hub) harness(site *natsbus.Client) bustest.Harness {
	return bustest.Harness{Hub: h.client, Store: h.store, Site: site, Name: "shop-1", Member: "m-1"}
}
