package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// sample is one line of what Prometheus reads.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// parseMetrics reads Prometheus' text format. Lines that are none of it are left out; of label values, those with
// escapes are taken as they stand.
func parseMetrics(text string) []sample {
	var out []sample
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s := sample{labels: map[string]string{}}
		rest := line
		if open := strings.IndexByte(line, '{'); open >= 0 {
			end := strings.LastIndexByte(line, '}')
			if end < open {
				continue
			}
			s.name, rest = line[:open], line[end+1:]
			s.labels = parseLabels(line[open+1 : end])
		} else {
			s.name, rest, _ = strings.Cut(line, " ")
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		var err error
		if s.value, err = strconv.ParseFloat(fields[0], 64); err == nil {
			out = append(out, s)
		}
	}
	return out
}

func parseLabels(text string) map[string]string {
	out := map[string]string{}
	for text != "" {
		name, rest, ok := strings.Cut(text, `="`)
		if !ok {
			break
		}
		end := 0
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			break
		}
		out[strings.Trim(name, ", ")] = rest[:end]
		text = rest[end+1:]
	}
	return out
}

// writes counts requests that change what the Kubernetes API stores, by verb and resource.
type writes map[string]int

// storesNothing are resources whose creation asks a question.
var storesNothing = []string{"tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews", "localsubjectaccessreviews", "selfsubjectreviews"}

// countWrites reads the API server's own count of requests; leases, which every hub renews, are left out.
func countWrites(samples []sample) writes {
	out := writes{}
	for _, s := range samples {
		resource := s.labels["resource"]
		if s.name != "apiserver_request_total" || resource == "leases" || slices.Contains(storesNothing, resource) {
			continue
		}
		verb := s.labels["verb"]
		if !slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}, verb) {
			continue
		}
		if sub := s.labels["subresource"]; sub != "" {
			resource += "/" + sub
		}
		if code := s.labels["code"]; !strings.HasPrefix(code, "2") {
			verb += " (" + code + ")"
		}
		out[verb+" "+resource] += int(s.value)
	}
	return out
}

// since returns what was added to before.
func (w writes) since(before writes) writes {
	out := writes{}
	for name, n := range w {
		if n -= before[name]; n > 0 {
			out[name] = n
		}
	}
	return out
}

func (w writes) total() int {
	sum := 0
	for _, n := range w {
		sum += n
	}
	return sum
}

// String names what was written, the most first.
func (w writes) String() string {
	names := slices.Collect(maps.Keys(w))
	slices.SortFunc(names, func(a, b string) int {
		if w[a] != w[b] {
			return w[b] - w[a]
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, name := range names {
		parts = append(parts, strconv.Itoa(w[name])+" "+name)
	}
	return strings.Join(parts, ", ")
}
