// Command hello-wasm is a small web app as a WebAssembly module: a CGI program, of which each request gets a
// fresh instance. Outside a site, `go run .` serves the same on http://127.0.0.1:8080.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"
)

func main() {
	http.HandleFunc("/", greet)
	if os.Getenv("GATEWAY_INTERFACE") == "" {
		log.Println("on http://127.0.0.1:8080")
		log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
	}
	if err := cgi.Serve(nil); err != nil {
		log.Fatal(err)
	}
}

// greet says where it runs, as JSON to programs and as text to people. The gateway passes the whole path on,
// with the route in front, so it looks at the path's end.
func greet(w http.ResponseWriter, r *http.Request) {
	site := os.Getenv("SKERRY_SITE")
	if site == "" {
		site = "no site"
	}
	if strings.HasSuffix(r.URL.Path, ".json") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"site": site, "release": os.Getenv("SKERRY_RELEASE")})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "Hello from %s, where this module was started for you alone.\n", site)
}
