package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// gvr names a resource as its path does.
type gvr struct{ group, version, resource string }

// served is what is known of a resource in one minor.
type served struct {
	kind       string
	namespaced bool
	byDefault  bool
}

// minor is what one minor serves.
type minor struct {
	number    int
	module    string
	sum       string
	From      string // discovery or openapi
	resources map[gvr]served
}

func readMinor(number int, mod module) (minor, error) {
	m := minor{number: number, module: mod.Name, sum: mod.Sum}
	var err error
	if mod.has("api/discovery") {
		m.From = "discovery"
		m.resources, err = readDiscovery(mod)
	} else {
		m.From = "openapi"
		m.resources, err = readOpenAPI(mod)
	}
	if err != nil {
		return minor{}, err
	}
	if len(m.resources) < 50 {
		return minor{}, fmt.Errorf("only %d resources were found: the format is not the one known", len(m.resources))
	}
	defaults, err := readDefaults(mod)
	if err != nil {
		return minor{}, err
	}
	for r, s := range m.resources {
		if s.byDefault, err = defaults.on(r); err != nil {
			return minor{}, err
		}
		m.resources[r] = s
	}
	return m, nil
}

// readDiscovery reads the APIResourceLists that an API server answers with.
func readDiscovery(mod module) (map[gvr]served, error) {
	out := map[gvr]served{}
	err := mod.walk("api/discovery", ".json", func(name string, data []byte) error {
		var list struct {
			Kind         string `json:"kind"`
			GroupVersion string `json:"groupVersion"`
			Resources    []struct {
				Name       string `json:"name"`
				Kind       string `json:"kind"`
				Namespaced bool   `json:"namespaced"`
			} `json:"resources"`
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if list.Kind != "APIResourceList" {
			return nil // lists of groups and versions; the same again, aggregated
		}
		group, version := path.Split(list.GroupVersion)
		for _, r := range list.Resources {
			if !strings.Contains(r.Name, "/") {
				out[gvr{strings.TrimSuffix(group, "/"), version, r.Name}] = served{kind: r.Kind, namespaced: r.Namespaced}
			}
		}
		return nil
	})
	return out, err
}

// collection is the path of all objects of a resource.
var collection = regexp.MustCompile(`^/(?:api|apis/([^/]+))/([^/]+)/(namespaces/\{namespace\}/)?([a-z]+)$`)

// readOpenAPI reads resources off the paths of the published description.
func readOpenAPI(mod module) (map[gvr]served, error) {
	data, err := mod.read("api/openapi-spec/swagger.json")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("swagger.json: %w", err)
	}
	out := map[gvr]served{}
	for p, operations := range doc.Paths {
		m := collection.FindStringSubmatch(p)
		if m == nil {
			continue
		}
		r := gvr{m[1], m[2], m[4]}
		kind, err := kindOf(operations, r)
		if err != nil {
			return nil, fmt.Errorf("swagger.json: %s: %w", p, err)
		}
		if kind == "" {
			continue
		}
		out[r] = served{kind: kind, namespaced: m[3] != "" || out[r].namespaced}
	}
	return out, nil
}

// kindOf returns the kind that the operations of a collection are about.
func kindOf(operations map[string]json.RawMessage, r gvr) (string, error) {
	for _, verb := range []string{"post", "get", "delete"} {
		raw, ok := operations[verb]
		if !ok {
			continue
		}
		var op struct {
			Kind struct{ Group, Version, Kind string } `json:"x-kubernetes-group-version-kind"`
		}
		if err := json.Unmarshal(raw, &op); err != nil {
			return "", err
		}
		if op.Kind.Kind == "" {
			continue
		}
		if op.Kind.Group != r.group || op.Kind.Version != r.version {
			return "", errors.New("its kind is of another group or version")
		}
		return op.Kind.Kind, nil
	}
	return "", nil
}
