package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// table is the file. Package catalog says what each field means.
type table struct {
	Notice  string       `json:"notice"`
	Licence string       `json:"licence"`
	Minors  []minorEntry `json:"minors"`
	Markers markerEntry  `json:"markers"`
	APIs    []entry      `json:"apis"`
}

type minorEntry struct {
	Minor     int    `json:"minor"`
	Module    string `json:"module"`
	Sum       string `json:"sum"`
	From      string `json:"from"`
	Resources int    `json:"resources"`
	Digest    string `json:"digest"`
}

type markerEntry struct {
	Module string `json:"module"`
	Sum    string `json:"sum"`
}

type entry struct {
	Group       string   `json:"group"`
	Version     string   `json:"version"`
	Kind        string   `json:"kind"`
	Resource    string   `json:"resource"`
	Namespaced  bool     `json:"namespaced,omitempty"`
	Served      [][2]int `json:"served"`
	Default     [][2]int `json:"default,omitempty"`
	Deprecated  int      `json:"deprecated,omitempty"`
	Removed     int      `json:"removed,omitempty"`
	Replacement *gvk     `json:"replacement,omitempty"`
	Source      string   `json:"source"`
}

const (
	notice  = "Made by tools/apitable from the modules named here; do not edit."
	licence = "Apache-2.0. Derived from Kubernetes, copyright The Kubernetes Authors, https://github.com/kubernetes/kubernetes"
)

func newTable(minors []minor, marks markers) table {
	t := table{Notice: notice, Licence: licence, Markers: markerEntry{marks.module, marks.sum}}
	rows := map[string]*entry{}
	for _, m := range minors {
		var lines []string
		for r, s := range m.resources {
			lines = append(lines, line(r, s))
			id := strings.Join([]string{r.group, r.version, r.resource, s.kind, fmt.Sprint(s.namespaced)}, " ")
			e := rows[id]
			if e == nil {
				e = &entry{Group: r.group, Version: r.version, Kind: s.kind, Resource: r.resource, Namespaced: s.namespaced, Source: m.From}
				rows[id] = e
			}
			e.Served = extend(e.Served, m.number)
			if s.byDefault {
				e.Default = extend(e.Default, m.number)
			}
			e.Source = m.From
		}
		t.Minors = append(t.Minors, minorEntry{m.number, m.module, m.sum, m.From, len(lines), digest(lines)})
	}
	newest := minors[len(minors)-1].number
	for _, e := range rows {
		mark := marks.of[gvk{e.Group, e.Version, e.Kind}]
		e.Deprecated, e.Replacement = mark.deprecated, mark.replacement
		if last := e.Served[len(e.Served)-1][1]; last < newest {
			e.Removed = last + 1
		} else if mark.removed > newest {
			e.Removed, e.Source = mark.removed, "markers"
		}
		t.APIs = append(t.APIs, *e)
	}
	slices.SortFunc(t.APIs, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Served[0][0], b.Served[0][0]))
	})
	return t
}

// line is what the digest of a minor is made of. Package catalog's test writes the same from the table alone.
func line(r gvr, s served) string {
	return fmt.Sprintf("%s/%s %s %s namespaced=%t default=%t\n", r.group, r.version, r.resource, s.kind, s.namespaced, s.byDefault)
}

func digest(lines []string) string {
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])
}

// extend adds n, which is above all before, to a list of ranges, both ends included.
func extend(ranges [][2]int, n int) [][2]int {
	if last := len(ranges) - 1; last >= 0 && ranges[last][1] == n-1 {
		ranges[last][1] = n
		return ranges
	}
	return append(ranges, [2]int{n, n})
}

// encode writes one line a row, so that a change can be read.
func encode(t table) ([]byte, error) {
	var b bytes.Buffer
	field := func(name string, v any, end string) error {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "  %q: %s%s\n", name, data, end)
		return nil
	}
	b.WriteString("{\n")
	if err := field("notice", t.Notice, ","); err != nil {
		return nil, err
	}
	if err := field("licence", t.Licence, ","); err != nil {
		return nil, err
	}
	if err := field("markers", t.Markers, ","); err != nil {
		return nil, err
	}
	if err := rowsOf(&b, "minors", t.Minors, ","); err != nil {
		return nil, err
	}
	if err := rowsOf(&b, "apis", t.APIs, ""); err != nil {
		return nil, err
	}
	b.WriteString("}\n")
	return b.Bytes(), nil
}

func rowsOf[T any](b *bytes.Buffer, name string, rows []T, end string) error {
	fmt.Fprintf(b, "  %q: [", name)
	for i, r := range rows {
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(b, "\n    %s", data)
	}
	fmt.Fprintf(b, "\n  ]%s\n", end)
	return nil
}
