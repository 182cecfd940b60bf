// Package sitebatch reads a table of sites to make, as a spreadsheet writes it (CSV, RFC 4180).
//
// Only package cli imports it. A table is read whole or not at all: each fault is an error that names the line
// and the column and wraps ErrTable, and all of them, up to a bound, come at once.
package sitebatch

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// ErrTable is wrapped by every error about a table that cannot be used.
var ErrTable = errors.New("this table of sites cannot be used")

// Bounds of a table.
const (
	MaxBytes  = 1 << 20
	MaxSites  = 10_000
	maxFields = 64
	maxLabels = 64
	maxZone   = 253
	// maxFaults is how many faults are told at once.
	maxFaults = 20
)

// Site is one line of a table.
type Site struct {
	// Line is where it stands, from 1, for messages.
	Line int
	Name fleet.SiteName
	// Zone and Fingerprint are empty when the line says none.
	Zone        string
	Fingerprint string
	// Labels are never nil.
	Labels map[string]string
}

// The columns of a table. A column "label:KEY" sets the label KEY.
const (
	columnName        = "name"
	columnZone        = "zone"
	columnLabels      = "labels"
	columnFingerprint = "fingerprint"
	columnLabelPrefix = "label:"
)

// Read reads a table. Its first line names the columns: name, and as wanted zone, fingerprint, labels (in the
// form k=v;k=v) and label:KEY. Blanks around a field, and empty lines, mean nothing; an empty field says nothing.
func Read(r io.Reader) ([]Site, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read table: %w", err)
	case len(data) > MaxBytes:
		return nil, fmt.Errorf("it is larger than 1 MiB: split it: %w", ErrTable)
	case !utf8.Valid(data):
		return nil, fmt.Errorf("it is not UTF-8: save it as CSV UTF-8: %w", ErrTable)
	}
	table := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	table.FieldsPerRecord = -1 // told below, with the others
	table.TrimLeadingSpace = true
	header, err := table.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("it is empty: its first line names the columns, such as name,zone,label:kind: %w", ErrTable)
	}
	if err != nil {
		return nil, unreadable(err)
	}
	p := &parser{columns: trimAll(header), names: map[fleet.SiteName]int{}, machines: map[string]int{}}
	if p.header(); len(p.faults) > 0 {
		return nil, p.err()
	}
	for {
		fields, err := table.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, unreadable(err)
		}
		line, _ := table.FieldPos(0)
		if len(p.sites) >= MaxSites {
			return nil, fmt.Errorf("it names more than %d sites: split it: %w", MaxSites, ErrTable)
		}
		p.row(line, trimAll(fields))
		if len(p.faults) > maxFaults {
			break
		}
	}
	if len(p.sites) == 0 && len(p.faults) == 0 {
		return nil, fmt.Errorf("it names no site: %w", ErrTable)
	}
	return p.sites, p.err()
}

// unreadable names the line that is no CSV; the csv package says which in its own words.
func unreadable(err error) error { return fmt.Errorf("%w: %w", err, ErrTable) }

func trimAll(fields []string) []string {
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	return fields
}

type parser struct {
	columns []string
	sites   []Site
	// names and machines hold the line in which each was first.
	names    map[fleet.SiteName]int
	machines map[string]int
	faults   []error
}

func (p *parser) fault(line int, column, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("line %d, column %s: %w", line, column, fmt.Errorf(format, args...)))
}

// err is nil when there is no fault.
func (p *parser) err() error {
	if len(p.faults) == 0 {
		return nil
	}
	told := p.faults
	if len(told) > maxFaults {
		told = append(told[:maxFaults:maxFaults], errors.New("and more"))
	}
	return fmt.Errorf("%w: nothing was made:\n%w", ErrTable, errors.Join(told...))
}

func (p *parser) header() {
	if len(p.columns) > maxFields {
		p.fault(1, "-", "there are %d columns, at most %d are allowed", len(p.columns), maxFields)
		return
	}
	seen := map[string]bool{}
	for _, c := range p.columns {
		key, isLabel := strings.CutPrefix(c, columnLabelPrefix)
		switch {
		case seen[c]:
			p.fault(1, c, "it is there twice")
		case isLabel:
			for _, why := range validation.IsQualifiedName(key) {
				p.fault(1, c, "no key of a label: %s", why)
			}
		case c != columnName && c != columnZone && c != columnLabels && c != columnFingerprint:
			p.fault(1, fmt.Sprintf("%.80q", c), "want name, zone, fingerprint, labels or label:KEY, divided by commas")
		}
		seen[c] = true
	}
	if !seen[columnName] && len(p.faults) == 0 {
		p.fault(1, columnName, "it is missing")
	}
}

func (p *parser) row(line int, fields []string) {
	if len(fields) != len(p.columns) {
		p.fault(line, "-", "%d fields, want %d as in the first line", len(fields), len(p.columns))
		return
	}
	s := Site{Line: line, Labels: map[string]string{}}
	for i, column := range p.columns {
		value := fields[i]
		key, isLabel := strings.CutPrefix(column, columnLabelPrefix)
		switch {
		case column == columnName:
			s.Name = fleet.SiteName(value)
			p.name(line, s.Name)
		case value == "":
		case column == columnZone:
			s.Zone = value
			if len(value) > maxZone {
				p.fault(line, column, "it has %d bytes, at most %d are allowed", len(value), maxZone)
			}
		case column == columnFingerprint:
			s.Fingerprint = value
			p.machine(line, value)
		case isLabel:
			p.label(line, column, s.Labels, key, value)
		case column == columnLabels:
			p.labels(line, s.Labels, value)
		}
	}
	if len(s.Labels) > maxLabels {
		p.fault(line, columnLabels, "%d labels, at most %d are allowed", len(s.Labels), maxLabels)
	}
	p.sites = append(p.sites, s)
}

func (p *parser) name(line int, name fleet.SiteName) {
	if err := name.Validate(); err != nil {
		p.fault(line, columnName, "%w", err)
		return
	}
	if first, ok := p.names[name]; ok {
		p.fault(line, columnName, "site %q is in line %d already", name, first)
		return
	}
	p.names[name] = line
}

func (p *parser) machine(line int, fingerprint string) {
	if err := fleet.ValidateFingerprint(fingerprint); err != nil {
		p.fault(line, columnFingerprint, "%w", err)
		return
	}
	if first, ok := p.machines[fingerprint]; ok {
		p.fault(line, columnFingerprint, "the machine is in line %d already", first)
		return
	}
	p.machines[fingerprint] = line
}

func (p *parser) labels(line int, to map[string]string, text string) {
	for pair := range strings.SplitSeq(text, ";") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			p.fault(line, columnLabels, "%.80q: want KEY=VALUE, divided by ;", pair)
			continue
		}
		p.label(line, columnLabels, to, strings.TrimSpace(key), strings.TrimSpace(value))
	}
}

func (p *parser) label(line int, column string, to map[string]string, key, value string) {
	for _, why := range validation.IsQualifiedName(key) {
		p.fault(line, column, "%.80q is no key of a label: %s", key, why)
	}
	for _, why := range validation.IsValidLabelValue(value) {
		p.fault(line, column, "label %.80q: %.80q is no value: %s", key, value, why)
	}
	if _, ok := to[key]; ok {
		p.fault(line, column, "label %.80q is set twice", key)
	}
	to[key] = value
}

// Missing returns the labels of want that have lacks or says otherwise.
func Missing(have, want map[string]string) map[string]string {
	out := maps.Clone(want)
	maps.DeleteFunc(out, func(k, v string) bool { old, ok := have[k]; return ok && old == v })
	return out
}
