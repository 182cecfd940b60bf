package report

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// The parts of SARIF 2.1.0 that are used.
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID      string      `json:"id"`
		Short   sarifText   `json:"shortDescription"`
		Full    sarifText   `json:"fullDescription"`
		Default sarifConfig `json:"defaultConfiguration"`
	}
	sarifConfig struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations,omitempty"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region *sarifRegion `json:"region,omitempty"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
	}
)

const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

func sarifLevel(s check.Severity) string {
	if s == check.Info {
		return "note"
	}
	return s.String()
}

// sarif is what code scanning services take in.
func sarif(w io.Writer, r Report) error {
	run := sarifRun{Tool: sarifTool{sarifDriver{Name: "skerry check", Version: r.Version, Rules: []sarifRule{}}}, Results: []sarifResult{}}
	for _, rule := range r.Rules {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{rule.ID, sarifText{rule.Title}, sarifText{rule.Why}, sarifConfig{sarifLevel(rule.Severity)}})
	}
	for _, f := range r.Findings {
		result := sarifResult{RuleID: f.Rule, Level: sarifLevel(f.Severity), Message: sarifText{sentence(f)}}
		var at sarifLocation
		if f.File != "" {
			at.Physical = &sarifPhysical{}
			at.Physical.Artifact.URI = uri(f.File)
			if f.Line > 0 {
				at.Physical.Region = &sarifRegion{f.Line}
			}
		}
		if f.Object != "" {
			name := f.Object
			if f.Field != "" {
				name += " " + f.Field
			}
			at.Logical = []sarifLogical{{name}}
		}
		if f.File != "" || f.Object != "" {
			result.Locations = []sarifLocation{at}
		}
		run.Results = append(run.Results, result)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}})
}

// uri writes a path as SARIF wants it: relative to the folder that the command ran in, or with a scheme.
func uri(file string) string {
	u := url.URL{Path: path.Clean(filepath.ToSlash(file))}
	if path.IsAbs(u.Path) {
		u.Scheme = "file"
	}
	return u.String()
}

// The parts of JUnit's XML that its readers agree on.
type (
	junitSuites struct {
		XMLName xml.Name   `xml:"testsuites"`
		Suite   junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		File    string        `xml:"file,attr,omitempty"`
		Line    int           `xml:"line,attr,omitempty"`
		Failure *junitFailure `xml:"failure,omitempty"`
		Output  string        `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// junit makes a case of each finding, which fails if the command does because of it, and one that passes of the rest.
func junit(w io.Writer, r Report) error {
	suite := junitSuite{Name: "skerry check"}
	for _, f := range r.Findings {
		c := junitCase{Class: f.Rule, Name: strings.TrimSpace(location(f) + " " + f.Object), File: f.File, Line: f.Line}
		if r.Fails(f) {
			suite.Failures++
			c.Failure = &junitFailure{Type: f.Severity.String(), Message: f.Reason, Text: sentence(f)}
		} else {
			c.Output = f.Severity.String() + ": " + sentence(f)
		}
		suite.Cases = append(suite.Cases, c)
	}
	suite.Cases = append(suite.Cases, junitCase{Class: "skerry check", Name: r.summary()})
	suite.Tests = len(suite.Cases)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(junitSuites{Suite: suite}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
