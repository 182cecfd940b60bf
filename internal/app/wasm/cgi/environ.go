// Package cgi turns a request into the variables of RFC 3875, and what a program wrote into a header.
//
// Only package wasm imports it. Errors are of type *HeaderError, whose text may be shown to the caller.
package cgi

import (
	"net"
	"net/http"
	"strconv"
	"strings"
)

// serverSoftware names us to guests.
const serverSoftware = "Skerry"

// Environ returns the variables of a request, "NAME=value", by RFC 3875, section 4.1. The route is not split
// off: SCRIPT_NAME is empty and PATH_INFO the whole path, as apps of other runtimes see it. Length is that of
// the body, zero for none.
func Environ(r *http.Request, length int64) []string {
	name, port := splitHost(r)
	env := make([]string, 0, 24+len(r.Header))
	set := func(name, value string) {
		// A zero byte would end the value for the guest.
		if strings.IndexByte(value, 0) < 0 {
			env = append(env, name+"="+value)
		}
	}
	set("GATEWAY_INTERFACE", "CGI/1.1")
	set("SERVER_SOFTWARE", serverSoftware)
	set("SERVER_PROTOCOL", r.Proto)
	set("SERVER_NAME", name)
	set("SERVER_PORT", port)
	set("REQUEST_METHOD", r.Method)
	set("REQUEST_URI", r.URL.RequestURI())
	set("SCRIPT_NAME", "")
	set("PATH_INFO", r.URL.Path)
	set("QUERY_STRING", r.URL.RawQuery)
	if host, port, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		set("REMOTE_ADDR", host)
		set("REMOTE_HOST", host)
		set("REMOTE_PORT", port)
	}
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		set("HTTPS", "on")
	}
	if length > 0 {
		set("CONTENT_LENGTH", strconv.FormatInt(length, 10))
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		set("CONTENT_TYPE", t)
	}
	set("HTTP_HOST", r.Host)
	for name, values := range r.Header {
		if variable := headerVariable(name); variable != "" {
			separator := ", "
			if name == "Cookie" {
				separator = "; "
			}
			set(variable, strings.Join(values, separator))
		}
	}
	return env
}

// headerVariable is the variable of a header, empty when it has none: two names of which one has '_' for '-'
// would meet in one variable, HTTP_PROXY would be taken for the proxy to use, and the others have variables of
// their own.
func headerVariable(name string) string {
	switch name {
	case "Content-Length", "Content-Type", "Host", "Proxy":
		return ""
	}
	b := make([]byte, 0, len(name)+5)
	b = append(b, "HTTP_"...)
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z':
			b = append(b, c-'a'+'A')
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b = append(b, c)
		case c == '-':
			b = append(b, '_')
		default:
			return ""
		}
	}
	return string(b)
}

func splitHost(r *http.Request) (name, port string) {
	name, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		name, port = strings.Trim(r.Host, "[]"), "80"
		if r.TLS != nil {
			port = "443"
		}
	}
	return name, port
}
