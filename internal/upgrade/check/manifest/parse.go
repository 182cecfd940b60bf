package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// parser gathers the objects of one file.
type parser struct {
	limits   Limits
	room     int // for objects
	file     string
	named    bool
	full     bool // the room is used up, which was said
	objects  []*check.Object
	findings []check.Finding
}

// syntaxError is a fault in a document, at a line of the file.
type syntaxError struct {
	line   int
	reason string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

func faultAt(line int, format string, args ...any) error {
	return &syntaxError{line, fmt.Sprintf(format, args...)}
}

// text takes in the content of the file.
func (p *parser) text(data []byte) {
	r := documents{limits: p.limits, mustBeJSON: strings.EqualFold(filepath.Ext(p.file), ".json"), place: func(line int) int { return line }}
	r.each(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), p.document, p.broken)
}

// documents reads the documents of a text.
type documents struct {
	limits     Limits
	mustBeJSON bool
	// place turns a line of the text into one of the file.
	place func(int) int
}

// each calls good with each document that is not empty, and bad with each that cannot be read.
func (r documents) each(data []byte, good func(*check.Value), bad func(document, error)) {
	if r.mustBeJSON || bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		values, err := readJSON(data, r.limits, r.place)
		// What begins like JSON and is none is a map in YAML's own flow style, or a template.
		if err == nil || r.mustBeJSON {
			for _, v := range values {
				good(v)
			}
			if err != nil {
				bad(document{data: data, line: r.place(1)}, err)
			}
			return
		}
	}
	for _, doc := range split(data) {
		first := doc.line
		doc.line = r.place(first)
		v, err := readYAML(doc.data, r.limits, func(line int) int { return r.place(first + line - 1) })
		switch {
		case err != nil:
			bad(doc, err)
		case v != nil:
			good(v)
		}
	}
}

// broken makes a finding of a document that cannot be read, if it was asked about or looks like an object.
func (p *parser) broken(doc document, err error) {
	if !p.named && !bytes.Contains(doc.data, []byte("apiVersion")) {
		return
	}
	at, reason := doc.line, err.Error()
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		at, reason = syntax.line, syntax.reason
	}
	fix := ""
	if bytes.Contains(doc.data, []byte("{{")) {
		fix = "if it is a template, check what it renders"
	}
	p.unusable(at, "", reason, fix)
}

func (p *parser) unusable(line int, field, reason, fix string) {
	p.findings = append(p.findings, check.Finding{Rule: RuleUnusable, Severity: check.Failure, File: p.file, Line: line, Field: field, Reason: reason, Fix: fix})
}

// document takes in one document of the file.
func (p *parser) document(v *check.Value) {
	root := check.Ref{Line: v.Line, Value: v}
	if v.Kind == check.List { // some tools write a bare list of objects
		for _, item := range root.Items() {
			p.object(item, header{}, "", 0)
		}
		return
	}
	p.object(root, header{}, "", 0)
}

// header is what a typed list says of its items.
type header struct{ apiVersion, kind string }

// object takes in an object, the items of a List in its place, and what a ConfigMap holds after it.
func (p *parser) object(at check.Ref, inherited header, within string, depth int) {
	h := header{at.Get("apiVersion").Text(), at.Get("kind").Text()}
	if h == (header{}) {
		h = inherited
	}
	switch {
	case at.Value.Kind != check.Map || (h.apiVersion == "" && h.kind == ""):
		return
	case depth > p.limits.Depth:
		p.unusable(at.Line, at.Path, check.ErrDeep.Error(), "")
		return
	case h.kind == "" || h.apiVersion == "":
		if h.apiVersion != "" && at.Get("metadata").Exists() {
			p.unusable(at.Line, at.Path, "it has an apiVersion and no kind", "write its kind")
		} else if h.kind != "" && at.Get("metadata", "name").Exists() {
			p.unusable(at.Line, at.Path, "it has a kind and no apiVersion", "write its apiVersion")
		}
		return
	case strings.HasSuffix(h.kind, "List") && at.Get("items").Exists():
		of := header{h.apiVersion, strings.TrimSuffix(h.kind, "List")}
		if of.kind == "" {
			of = header{}
		}
		for _, item := range at.Get("items").Items() {
			p.object(item, of, within, depth+1)
		}
		return
	}
	if len(p.objects) >= p.room {
		if !p.full {
			p.full = true
			p.unusable(at.Line, "", fmt.Sprintf("more than %d objects were given", p.limits.Objects), "check them in parts")
		}
		return
	}
	o := &check.Object{File: p.file, Within: within, APIVersion: h.apiVersion, Kind: h.kind, Root: at}
	if o.Kind == "Kustomization" && o.Group() == "kustomize.config.k8s.io" {
		p.findings = append(p.findings, o.Finding(RuleSkipped, check.Warning, at, "kustomizations are not built yet; the files beside it are checked as they stand",
			"check what it builds: kubectl kustomize "+filepath.Dir(p.file)+" | skerry check -"))
	}
	p.objects = append(p.objects, o)
	if o.Kind == "ConfigMap" && o.APIVersion == "v1" {
		p.held(o, depth)
	}
}

// held takes in the objects that a ConfigMap's values hold. What is broken there may be anything, and is passed over.
func (p *parser) held(o *check.Object, depth int) {
	for _, field := range o.Root.Get("data").Fields() {
		text := field.Text()
		if !strings.Contains(text, "apiVersion") || !strings.Contains(text, "kind") || !utf8.ValidString(text) {
			continue
		}
		first, literal := field.Value.Line, field.Value.Literal
		inner := documents{limits: p.limits, place: func(line int) int {
			if literal {
				return first + line
			}
			return first
		}}
		inner.each([]byte(text), func(v *check.Value) {
			p.object(check.Ref{Line: v.Line, Value: v}, header{}, o.String()+" "+field.Path, depth+1)
		}, func(document, error) {})
	}
}
