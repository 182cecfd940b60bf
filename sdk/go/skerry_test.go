package skerry_test

import (
	"errors"
	"net/http"
	"testing"

	skerry "github.com/skerry-dev/skerry/sdk/go"
)

// A program that is tried on its author's machine hears why the site does not answer. What happens at a site is
// tested there, with the module of examples/shop.
func TestNotAtSite(t *testing.T) {
	_, get := skerry.Get("a")
	_, send := skerry.Client.Get("http://example.com/")
	var list error
	for _, err := range skerry.Keys("") {
		list = err
	}
	for what, err := range map[string]error{
		"serve": skerry.Serve(http.NotFoundHandler()), "get": get, "put": skerry.Put("a", nil), "delete": skerry.Delete("a"),
		"list": list, "send": send,
	} {
		if !errors.Is(err, skerry.ErrNotAtSite) {
			t.Errorf("%s: %v, want ErrNotAtSite", what, err)
		}
	}
}
