package appsite

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/skerry-dev/skerry/internal/app"
)

// FuzzLogsQuery asks on the local socket as anybody in the data directory may.
func FuzzLogsQuery(f *testing.F) {
	f.Add("app=default/hello&tail=-1&follow=true")
	f.Add("app=../../etc/passwd&tail=1e9")
	f.Fuzz(func(t *testing.T, query string) {
		r, err := logsQuery(&http.Request{URL: &url.URL{RawQuery: query}})
		if err == nil && (r.App.Validate() != nil || r.Tail < 0 || r.Tail > app.MaxTail) {
			t.Errorf("%s is taken as %+v", query, r)
		}
	})
}
