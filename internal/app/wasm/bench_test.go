package wasm

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkRequest is one request through the gateway's handler, by module; make bench-wasm measures the whole.
func BenchmarkRequest(b *testing.B) {
	k := newKitchen(b, nil)
	for name, module := range map[string]string{"kitchen": goGuest(b, "kitchen"), "sdk": sdkGuest(b, "hello")} {
		d := k.serve(name, module, nil)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				k.gateway.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+d.spec.App.Name+".test/hello", nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
