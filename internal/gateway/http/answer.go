package httpgateway

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
)

// Answer is the body of every answer that the gateway gives itself, to callers that do not ask for HTML.
type Answer struct {
	Status    int    `json:"status"`
	Error     string `json:"error"`
	RequestID string `json:"requestId"`
	App       string `json:"app,omitempty"`
	Release   string `json:"release,omitempty"`
}

// retryAfter is how many seconds a caller is asked to wait when an app is not there.
const retryAfter = "1"

var page = template.Must(template.New("answer").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>body{font:17px/1.5 system-ui,sans-serif;max-width:36em;margin:18vh auto;padding:0 1em;color:#223}
h1{font-size:1.4em}small{color:#778}@media(prefers-color-scheme:dark){body{background:#181a20;color:#dde}}</style>
<h1>{{.Title}}</h1><p>{{.Error}}</p><small>Request {{.RequestID}}</small></html>
`))

// answer writes the gateway's own answer, as HTML to browsers and as JSON to everyone else.
func (g *Gateway) answer(w *recorder, r *http.Request, p *passage, status int, text string) {
	a := Answer{Status: status, Error: text, RequestID: p.id}
	if p.entry != nil {
		a.App, a.Release = p.entry.app.String(), p.entry.route.Release
	}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable {
		header.Set("Retry-After", retryAfter)
	}
	// A caller that is gone cannot be told, so errors of writing are dropped.
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		header.Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		_ = page.Execute(w, struct {
			Answer
			Title string
		}{a, http.StatusText(status)})
		return
	}
	header.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}
