package cgi

import (
	"bytes"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// maxLines bounds the lines of a header.
const maxLines = 128

// HeaderEnd finds the empty line: the header ends at end, the body begins at next; both are -1 while
// there is none.
func HeaderEnd(b []byte) (end, next int) {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return -1, -1
		}
		line := b[at : at+i]
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return at, at + i + 1
		}
		at += i + 1
	}
}

// connectionHeaders are the server's own; what a guest says of them is left out.
var connectionHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "X-Request-Id": true, "Status": true,
}

// HeaderError says what is wrong with a program's header.
type HeaderError struct{ text string }

// Error returns a whole sentence.
func (e *HeaderError) Error() string { return e.text }

// ParseHeader reads the lines of a CGI header (RFC 3875, section 6.3) and returns the status, which may follow
// from the other fields, and what is to be sent on. A Location without a status is a redirect by the caller,
// also when it is a path alone.
func ParseHeader(head []byte) (int, http.Header, error) {
	malformed := func(format string, args ...any) (int, http.Header, error) {
		return 0, nil, &HeaderError{fmt.Sprintf(format, args...)}
	}
	status := 0
	fields := http.Header{}
	lines := 0
	for line := range strings.Lines(string(head)) {
		if lines++; lines > maxLines {
			return malformed("It has more than %d lines.", maxLines)
		}
		line = strings.TrimRight(line, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !token(name) || strings.ContainsFunc(value, control) {
			return malformed("Line %d is none: %s.", lines, quoted(line))
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if name == "Status" {
			code, _, _ := strings.Cut(value, " ")
			n, err := strconv.Atoi(code)
			if err != nil || n < 200 || n > 599 || len(code) != 3 || status != 0 {
				return malformed("Its status is %s, want one of 200 to 599, once.", quoted(value))
			}
			status = n
		}
		if name == "Content-Length" {
			if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < 0 || fields[name] != nil {
				return malformed("Its Content-Length is %s.", quoted(value))
			}
		}
		if !connectionHeaders[name] {
			fields[name] = append(fields[name], value)
		}
	}
	switch {
	case status != 0:
	case fields["Location"] != nil:
		status = http.StatusFound
	case fields["Content-Type"] != nil:
		status = http.StatusOK
	default:
		return malformed("It has neither Content-Type, Location nor Status.")
	}
	return status, fields, nil
}

func control(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// quoted shows the beginning of what a guest wrote.
func quoted(s string) string { return fmt.Sprintf("%q", s[:min(len(s), 60)]) }

// token reports whether s is one by RFC 9110, section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
