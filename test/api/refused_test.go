package apitest

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

// app is an App whose spec has these lines besides the least that it needs.
func app(name, lines string) string {
	return fmt.Sprintf("kind: App\nmetadata: {name: %q}\nspec:\n  source: {bundle: 'hello:1.0.0'}\n  placement: {sites: {}}\n%s", name, lines)
}

func bundled(ref string) string {
	return fmt.Sprintf("kind: App\nmetadata: {name: hello}\nspec: {source: {bundle: %q}, placement: {sites: {}}}", ref)
}

func site(name, spec string) string {
	return fmt.Sprintf("kind: Site\nmetadata: {name: %q}\nspec: {%s}", name, spec)
}

func grant(spec string) string {
	return "kind: SiteGrant\nmetadata: {name: g}\nspec: {" + spec + "}"
}

func release(spec string) string {
	return "kind: Release\nmetadata: {name: r}\nspec: {" + spec + "}"
}

// testRefused wants of each wrong object that the answer holds the field, the value, and what is allowed.
func (s *server) testRefused(t *testing.T) {
	long := strings.Repeat("a", 300)
	tests := []refusal{
		{"a name with a dot is no token of a subject", app("a.b", ""), []string{`"a.b"`, "at most 52 lower-case letters, digits"}},
		{"a release's name must fit a label", app(strings.Repeat("a", 53), ""), []string{strings.Repeat("a", 53), "at most 52"}},
		{"a site's name with a dot", site("shop.1", ""), []string{`"shop.1"`, "at most 63 lower-case letters, digits"}},
		{"a site's name that is too long", site(strings.Repeat("a", 64), ""), []string{"at most 63"}},
		{"a bundle without a version", bundled("hello"), []string{"spec.source.bundle", `"hello"`, "should match"}},
		{"a bundle of another namespace", bundled("other/hello:1"), []string{"spec.source.bundle", `"other/hello:1"`}},
		{"a bundle of another registry", bundled("example.com/hello:1"), []string{"spec.source.bundle", `"example.com/hello:1"`}},
		{"a digest that was cut short", bundled("hello@sha256:ba78"), []string{"spec.source.bundle", `"hello@sha256:ba78"`}},
		{"a bundle in upper case", bundled("Hello:1"), []string{"spec.source.bundle", `"Hello:1"`}},
		{"a bundle without end", bundled("hello:" + long + long), []string{"spec.source.bundle", "512"}},
		{"no source", "kind: App\nmetadata: {name: hello}\nspec: {placement: {sites: {}}}", []string{"spec.source", "Required value"}},
		{"no placement", "kind: App\nmetadata: {name: hello}\nspec: {source: {bundle: 'hello:1'}}", []string{"spec.placement", "Required value"}},
		{"no spec", "kind: App\nmetadata: {name: hello}", []string{"spec", "Required value"}},
		{"the agent's own variable", app("a", "  env: {PORT: '1'}"), []string{"spec.env", "PORT and SKERRY_* are set by the agent"}},
		{"the agent's own variables", app("a", "  env: {SKERRY_X: '1'}"), []string{"spec.env", "PORT and SKERRY_* are set by the agent"}},
		{"a variable that begins with a digit", app("a", "  env: {1A: '1'}"), []string{"spec.env", "not beginning with a digit"}},
		{"a variable with a dash", app("a", "  env: {A-B: '1'}"), []string{"spec.env", "letters, digits and '_'"}},
		{"a variable without a name", app("a", "  env: {'': '1'}"), []string{"spec.env", "letters, digits and '_'"}},
		{"a variable whose value is a number", app("a", "  env: {A: 1}"), []string{"spec.env.A", "must be of type string"}},
		{"a value without end", app("a", "  env: {A: "+strings.Repeat("x", 4097)+"}"), []string{"spec.env.A", "4096"}},
		{"a value with a zero byte", app("a", `  env: {A: "x\0y"}`), []string{"spec.env.A", "should match"}},
		{"values that are a list", app("a", "  values: [1]"), []string{"spec.values", "must be of type object"}},
		{"values that are a word", app("a", "  values: x"), []string{"spec.values", "must be of type object"}},
		{"values from nowhere", app("a", "  valuesFrom: [{}]"), []string{"spec.valuesFrom[0].configMapRef", "Required value"}},
		{"values from a ConfigMap without a name", app("a", "  valuesFrom: [{configMapRef: {name: ''}}]"), []string{"spec.valuesFrom[0].configMapRef.name", "at least 1"}},
		{"values from another namespace", app("a", "  valuesFrom: [{configMapRef: {name: other/config}}]"), []string{"spec.valuesFrom[0].configMapRef.name", `"other/config"`}},
		{"a key with a slash", app("a", "  valuesFrom: [{configMapRef: {name: c, key: a/b}}]"), []string{"spec.valuesFrom[0].configMapRef.key", `"a/b"`}},
		{"more ConfigMaps than anyone follows", app("a", "  valuesFrom: ["+strings.Repeat("{configMapRef: {name: c}},", 33)+"]"), []string{"spec.valuesFrom", "33", "at most 32"}},
		{"an override for nobody", app("a", "  overrides: [{values: {}}]"), []string{"spec.overrides[0]", "set one of sites and site"}},
		{"an override for one and for many", app("a", "  overrides: [{site: s, sites: {}, values: {}}]"), []string{"spec.overrides[0]", "set one of sites and site"}},
		{"an override of nothing", app("a", "  overrides: [{site: s}]"), []string{"spec.overrides[0].values", "Required value"}},
		{"an override by a list", app("a", "  overrides: [{site: s, values: [1]}]"), []string{"spec.overrides[0].values", "must be of type object"}},
		{"an override for a pattern of sites", app("a", "  overrides: [{site: 'shop-*', values: {}}]"), []string{"spec.overrides[0].site", `"shop-*"`}},
		{"a file outside of the configuration", app("a", "  files: [{path: ../a, content: x}]"), []string{"spec.files[0].path", `"../a"`}},
		{"a file by an absolute path", app("a", "  files: [{path: /etc/passwd, content: x}]"), []string{"spec.files[0].path", `"/etc/passwd"`}},
		{"the agent's own file", app("a", "  files: [{path: values.json, content: x}]"), []string{"spec.files[0].path", "which the agent writes"}},
		{"one file twice", app("a", "  files: [{path: a, content: x}, {path: a, content: y}]"), []string{"spec.files[1]", "Duplicate"}},
		{"a file without content", app("a", "  files: [{path: a}]"), []string{"spec.files[0].content", "Required value"}},
		{"a file without end", app("a", "  files: [{path: a, content: "+strings.Repeat("x", 65537)+"}]"), []string{"spec.files[0].content", "65536"}},
		{"no site may be unavailable", app("a", "  update: {maxUnavailable: 0}"), []string{"spec.update.maxUnavailable", "0", "a number from 1, or 1% to 100%"}},
		{"fewer than none", app("a", "  update: {maxUnavailable: -1}"), []string{"spec.update.maxUnavailable", "-1", "a number from 1, or 1% to 100%"}},
		{"no part of the sites", app("a", "  update: {maxUnavailable: 0%}"), []string{"spec.update.maxUnavailable", "0%", "a number from 1, or 1% to 100%"}},
		{"more than all", app("a", "  update: {maxUnavailable: 101%}"), []string{"spec.update.maxUnavailable", "101%", "a number from 1, or 1% to 100%"}},
		{"a word", app("a", "  update: {maxUnavailable: abc}"), []string{"spec.update.maxUnavailable", "abc", "a number from 1, or 1% to 100%"}},
		{"a number in quotes", app("a", "  update: {maxUnavailable: '3'}"), []string{"spec.update.maxUnavailable", "3", "a number from 1, or 1% to 100%"}},
		{"half a site", app("a", "  update: {maxUnavailable: 1.5}"), []string{"spec.update.maxUnavailable", "integer"}},
		{"a path without a slash", app("a", "  route: {path: hello}"), []string{"spec.route.path", `"hello"`, "should match"}},
		{"a path with a query", app("a", "  route: {path: '/a?b'}"), []string{"spec.route.path", `"/a?b"`}},
		{"a path with a blank", app("a", "  route: {path: '/a b'}"), []string{"spec.route.path", `"/a b"`}},
		{"a host with a port", app("a", "  route: {host: 'a:80'}"), []string{"spec.route.host", `"a:80"`}},
		{"a host in upper case", app("a", "  route: {host: Shop}"), []string{"spec.route.host", `"Shop"`}},
		{"an end that nobody knows", app("a", "  onDelete: Burn"), []string{"spec.onDelete", `"Burn"`, `"KeepData"`, `"RemoveData"`}},
		{"a selector with an operator that nobody knows",
			"kind: App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}, placement: {sites: {matchExpressions: [{key: kind, operator: Like, values: [x]}]}}}",
			[]string{"spec.placement.sites.matchExpressions", "operator must be In, NotIn, Exists or DoesNotExist"}},
		{"a selector with In and no values",
			"kind: App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}, placement: {sites: {matchExpressions: [{key: kind, operator: In}]}}}",
			[]string{"spec.placement.sites.matchExpressions", "In and NotIn need values"}},
		{"a selector with Exists and a value",
			"kind: App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}, placement: {sites: {matchExpressions: [{key: kind, operator: Exists, values: [x]}]}}}",
			[]string{"spec.placement.sites.matchExpressions", "take no values"}},
		{"a selector that is a list", "kind: App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}, placement: {sites: []}}",
			[]string{"spec.placement.sites", "must be of type object"}},
		{"a grant to nobody", grant("namespaces: [], sites: {}, runtimes: [process]"), []string{"spec.namespaces", "at least 1"}},
		{"a grant without namespaces", grant("sites: {}, runtimes: [process]"), []string{"spec.namespaces", "Required value"}},
		{"a grant to a pattern", grant("namespaces: ['team-*'], sites: {}, runtimes: [process]"), []string{"spec.namespaces[0]", `"team-*"`}},
		{"a grant to one twice", grant("namespaces: [a, a], sites: {}, runtimes: [process]"), []string{"spec.namespaces[1]", "Duplicate", `"a"`}},
		{"a grant of no runtime", grant("namespaces: [a], sites: {}, runtimes: []"), []string{"spec.runtimes", "at least 1"}},
		{"a grant of a runtime that nobody knows", grant("namespaces: [a], sites: {}, runtimes: [docker]"),
			[]string{"spec.runtimes[0]", `"docker"`, `"process"`, `"wasm"`, `"cluster"`}},
		{"a grant without sites", grant("namespaces: [a], runtimes: [process]"), []string{"spec.sites", "Required value"}},
		{"a grant of a half truth", grant("namespaces: [a], sites: {}, runtimes: [process], host: {root: maybe}"), []string{"spec.host.root", "boolean"}},
		{"a grant whose selector is broken", grant("namespaces: [a], sites: {matchExpressions: [{key: kind, operator: Like}]}, runtimes: [process]"),
			[]string{"spec.sites.matchExpressions", "operator must be In, NotIn"}},
		{"a site of an endless zone", site("s", "zone: "+long), []string{"spec.zone", "253"}},
		{"a member that is revoked twice", site("s", "revokedMembers: [m, m]"), []string{"spec.revokedMembers[1]", "Duplicate"}},
		{"a release of content by tag", release("app: a, runtime: process, bundle: {repository: default/a, digest: latest, size: 1}"),
			[]string{"spec.bundle.digest", `"latest"`}},
		{"a release of nothing", release("app: a, runtime: process, bundle: {repository: default/a, digest: '" + digest + "', size: 0}"),
			[]string{"spec.bundle.size", "0", "greater than or equal to 1"}},
		{"a release of no app", release("runtime: process, bundle: {repository: default/a, digest: '" + digest + "', size: 1}"), []string{"spec.app", "Required value"}},
	}
	for _, tt := range append(tests, refusedSecrets()...) {
		t.Run(tt.reason, func(t *testing.T) {
			u := object(t, tt.object)
			err := s.client.Create(t.Context(), u)
			if err == nil {
				_ = s.client.Delete(t.Context(), u)
				t.Fatalf("accepted:\n%s", tt.object)
			}
			if !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
				t.Errorf("refused with another kind of error: %v", err)
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the answer does not say %s:\n%v", want, err)
				}
			}
		})
	}
}

// testAccepted wants what lies just inside each bound to be taken.
func (s *server) testAccepted(t *testing.T) {
	objects := map[string]string{
		"the longest name":     app(strings.Repeat("a", 52), ""),
		"one letter":           app("a", ""),
		"a digest":             bundled("hello@" + digest),
		"a version with marks": bundled("hello:v1.0.0-rc.1_x"),
		"one site":             app("a", "  update: {maxUnavailable: 1}"),
		"all sites":            app("a", "  update: {maxUnavailable: 100%}"),
		"the whole gateway":    app("a", "  route: {path: /}"),
		"any host":             app("a", "  route: {host: ''}"),
		"a variable":           app("a", "  env: {_A1: '', a: 'x\ty'}"),
		"configuration":        app("a", "  values: {a: {b: [1]}}\n  valuesFrom: [{configMapRef: {name: c.d, key: a.yaml, optional: true}}]\n  overrides: [{sites: {}, values: {}}, {site: shop-1, values: {a: null}}]\n  files: [{path: conf.d/a_b-1.conf, content: ''}]"),
		"the largest file":     app("a", "  files: [{path: "+strings.Repeat("a", 255)+", content: "+strings.Repeat("x", 65536)+"}]"),
		"every namespace":      grant("namespaces: ['*'], sites: {}, runtimes: [process, wasm, cluster]"),
		"the longest site":     site(strings.Repeat("a", 63), ""),
		"a bare site":          "kind: Site\nmetadata: {name: bare}",
		"a release":            release("app: a, runtime: process, bundle: {repository: default/a, digest: '" + digest + "', size: 1}"),
	}
	maps.Copy(objects, acceptedSecrets())
	for reason, text := range objects {
		t.Run(reason, func(t *testing.T) { s.create(t, object(t, text)) })
	}
}
