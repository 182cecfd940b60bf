package arch

import (
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/skerry-dev/skerry"

// rule says what the packages that match may import of ours, or must not import at all.
type rule struct {
	// pkgs are patterns of path.Match below the module; "/..." at the end matches everything below.
	pkgs []string
	// ours, when not nil, are the only patterns of our own packages that may be imported.
	ours []string
	// never are prefixes of import paths that must not appear.
	never  []string
	reason string
}

var (
	kernel      = []string{"internal/fleet", "internal/wire", "internal/wire/...", "internal/store", "internal/telemetry"}
	kubernetes  = []string{"k8s.io/", "sigs.k8s.io/controller-runtime"}
	natsServer  = []string{"github.com/nats-io/nats-server"}
	nats        = []string{"github.com/nats-io/"}
	wazero      = []string{"github.com/tetratelabs/wazero"}
	apiserver   = []string{"k8s.io/kubernetes", "go.etcd.io/etcd/server"}
	yamlParser  = []string{"go.yaml.in/yaml", "sigs.k8s.io/yaml"}
	containerOS = []string{"github.com/google/go-containerregistry"}
)

func join(lists ...[]string) []string {
	var out []string
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func rules() []rule {
	return []rule{
		{pkgs: []string{"internal/fleet"}, ours: []string{}, never: join(kubernetes, nats, wazero),
			reason: "plain values are what everything else speaks of"},
		{pkgs: []string{"internal/wire", "internal/wire/membus", "internal/wire/bustest"}, ours: []string{"internal/fleet", "internal/wire"}, never: join(kubernetes, nats, wazero),
			reason: "the language between hub and sites must not depend on either, nor on what carries it"},
		{pkgs: []string{"internal/store"}, ours: []string{}, never: join(kubernetes, nats, wazero),
			reason: "a site's store is one bbolt file"},
		{pkgs: []string{"internal/telemetry"}, ours: []string{}, never: join(kubernetes, nats, wazero),
			reason: "every process has a log and metrics, the smallest too"},
		{pkgs: []string{"internal/natsbus", "internal/natsserver", "internal/ociclient", "internal/ociregistry"}, ours: kernel, never: kubernetes,
			reason: "a driver wraps one library and knows the kernel only, so that it can be exchanged"},
		{pkgs: []string{"internal/kube"}, ours: kernel, never: nats,
			reason: "the API server is a driver like any other"},
		{pkgs: []string{"internal/hub/outage"}, ours: []string{"internal/fleet"}, never: join(kubernetes, nats, wazero),
			reason: "what to believe is logic over values"},
		{pkgs: []string{"internal/hub"}, ours: join(kernel, []string{"config", "internal/hub/outage", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "features and drivers are handed to the hub; it knows neither"},
		{pkgs: []string{"internal/site"}, ours: join(kernel, []string{"internal/site/outbox"}), never: join(kubernetes, nats, wazero),
			reason: "the agent must stay small, and features are handed to it"},
		{pkgs: []string{"internal/site/outbox"}, ours: kernel, never: join(kubernetes, nats, wazero),
			reason: "a part of the agent that needs no other"},
		{pkgs: []string{"internal/app", "internal/delivery", "internal/enroll", "internal/event", "internal/secret"}, ours: kernel, never: join(kubernetes, nats, wazero),
			reason: "a feature's core is shared by hub, site and command line: whatever it links, all of them link"},
		{pkgs: []string{"internal/app/apphub"}, ours: join(kernel, []string{"internal/app", "internal/app/appapi", "internal/app/appschema", "internal/hub", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a hub half meets sites only through messages, other features only through package hub"},
		{pkgs: []string{"internal/enroll/enrollhub"}, ours: join(kernel, []string{"internal/enroll", "internal/enroll/...", "internal/hub", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a hub half meets sites only through messages, other features only through package hub"},
		{pkgs: []string{"internal/delivery/deliveryhub"}, ours: join(kernel, []string{"internal/delivery", "internal/hub", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a hub half meets sites only through messages, other features only through package hub"},
		{pkgs: []string{"internal/delivery/deliverysite"}, ours: join(kernel, []string{"internal/delivery", "internal/site"}), never: join(kubernetes, nats, wazero),
			reason: "a site half knows no Kubernetes: what crosses the bus are core types"},
		{pkgs: []string{"internal/event/eventhub"}, ours: join(kernel, []string{"internal/event", "internal/hub", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a hub half meets sites only through messages, other features only through package hub"},
		{pkgs: []string{"internal/secret/secrethub"}, ours: join(kernel, []string{"internal/secret", "internal/hub", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a hub half meets sites only through messages, other features only through package hub"},
		{pkgs: []string{"internal/secret/secretsite"}, ours: join(kernel, []string{"internal/secret", "internal/site"}), never: join(kubernetes, nats, wazero),
			reason: "a site half knows no Kubernetes: what crosses the bus are core types"},
		{pkgs: []string{"internal/upkeep"}, ours: kernel, never: join(kubernetes, nats, wazero),
			reason: "a feature's core is shared by hub, site and command line: whatever it links, all of them link"},
		{pkgs: []string{"internal/upkeep/slots"}, ours: []string{}, never: join(kubernetes, nats, wazero),
			reason: "what decides which program runs must be small enough to be read in one go"},
		{pkgs: []string{"internal/upkeep/supervise"}, ours: join(kernel, []string{"internal/site", "internal/upkeep/slots"}), never: join(kubernetes, nats, wazero),
			reason: "the supervisor is not upgraded with the agent: it knows of agents what their local socket says"},
		{pkgs: []string{"internal/upkeep/upkeepsite"}, ours: join(kernel, []string{"internal/upkeep", "internal/upkeep/slots", "internal/upkeep/supervise", "internal/site"}), never: join(kubernetes, nats, wazero),
			reason: "a site half knows no Kubernetes: what crosses the bus are core types"},
		{pkgs: []string{"internal/upkeep/upkeephub"}, ours: join(kernel, []string{"internal/upkeep", "internal/hub", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a hub half meets sites only through messages, other features only through package hub"},
		{pkgs: []string{"internal/app/secretdir"}, ours: kernel, never: join(kubernetes, nats, wazero),
			reason: "a leaf wraps what it is for: directories in memory"},
		{pkgs: []string{"internal/app/unpacked"}, ours: join(kernel, []string{"internal/app"}), never: join(kubernetes, nats, wazero),
			reason: "a leaf wraps what it is for: directories that are just what a verified layer holds"},
		{pkgs: []string{"internal/app/schedule"}, ours: join(kernel, []string{"internal/app"}), never: join(kubernetes, nats, wazero),
			reason: "the one package of schedules serves site halves and runtimes alike"},
		{pkgs: []string{"internal/app/task"}, ours: join(kernel, []string{"internal/app"}), never: join(kubernetes, nats, wazero),
			reason: "a core is shared by hub, site and command line: whatever it links, all of them link"},
		{pkgs: []string{"internal/app/taskhub"}, ours: join(kernel, []string{"internal/app", "internal/app/task", "internal/app/appapi", "internal/app/appschema", "internal/hub", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a hub half meets sites only through messages, other features only through package hub; tasks are a part of the feature of apps and use its leaves"},
		{pkgs: []string{"internal/app/tasksite"}, ours: join(kernel, []string{"internal/app", "internal/app/task", "internal/app/schedule", "internal/app/appsite", "internal/site"}), never: join(kubernetes, nats, wazero),
			reason: "a site half knows no Kubernetes; tasks are a part of the feature of apps and run through its module, as its runtimes are run"},
		{pkgs: []string{"internal/app/appsite"}, ours: join(kernel, []string{"internal/app", "internal/app/secretdir", "internal/app/unpacked", "internal/site"}), never: join(kubernetes, nats, wazero),
			reason: "a site half knows no Kubernetes: what crosses the bus are core types"},
		{pkgs: []string{"internal/enroll/enrollsite"}, ours: join(kernel, []string{"internal/enroll", "internal/site"}), never: join(kubernetes, nats, wazero),
			reason: "a site half knows no Kubernetes: what crosses the bus are core types"},
		{pkgs: []string{"internal/app/process"}, ours: join(kernel, []string{"internal/app", "internal/app/appsite"}), never: join(kubernetes, nats, wazero),
			reason: "a runtime implements an interface of appsite and is handed in by cmd"},
		{pkgs: []string{"internal/app/wasm", "internal/app/wasm/..."}, ours: join(kernel, []string{"internal/app", "internal/app/appsite", "internal/app/schedule", "internal/app/wasm/..."}), never: join(kubernetes, nats),
			reason: "a runtime implements an interface of appsite and is handed in by cmd"},
		{pkgs: []string{"internal/gateway"}, ours: kernel, never: join(kubernetes, nats, wazero),
			reason: "a feature's core is shared by hub, site and command line: whatever it links, all of them link"},
		{pkgs: []string{"internal/gateway/http"}, ours: join(kernel, []string{"internal/gateway", "internal/site"}), never: join(kubernetes, nats, wazero),
			reason: "the gateway meets runtimes only through site.Router"},
		{pkgs: []string{"internal/app/appapi"}, ours: join(kernel, []string{"internal/app", "api/..."}), never: join(nats, wazero, apiserver),
			reason: "a leaf turns one library's types into the core's"},
		{pkgs: []string{"internal/app/appschema"}, ours: join(kernel, []string{"internal/app"}), never: join(kubernetes, nats, wazero),
			reason: "a leaf wraps the library that it is for"},
		{pkgs: []string{"internal/app/bundle"}, ours: join(kernel, []string{"internal/app", "examples", "examples/..."}), never: join(kubernetes, nats, wazero),
			reason: "a leaf wraps the library that it is for"},
		{pkgs: []string{"catalog"}, ours: []string{}, never: join(kubernetes, nats, wazero),
			reason: "data that everything may read needs nothing"},
		{pkgs: []string{"internal/upgrade/check"}, ours: []string{}, never: join(kubernetes, nats, wazero, yamlParser),
			reason: "a feature's core is shared: whatever it links, all of them link"},
		{pkgs: []string{"internal/upgrade/check/kubeapi"}, ours: []string{"internal/upgrade/check", "catalog"}, never: join(kubernetes, nats, wazero, yamlParser),
			reason: "a leaf wraps what it is for: the table of APIs, which needs no client to be asked"},
		{pkgs: []string{"internal/upgrade/check/manifest"}, ours: []string{"internal/upgrade/check"}, never: join(kubernetes, nats, wazero),
			reason: "a leaf wraps the library that it is for"},
		{pkgs: []string{"internal/upgrade/check/podsecurity"}, ours: []string{"internal/upgrade/check"}, never: join(nats, wazero, apiserver, yamlParser),
			reason: "a leaf wraps the library that it is for"},
		{pkgs: []string{"internal/upgrade/check/report"}, ours: []string{"internal/upgrade/check"}, never: join(kubernetes, nats, wazero, yamlParser),
			reason: "what is found is shown without knowing what it was found in"},
		{pkgs: []string{"internal/cli", "internal/cli/..."}, ours: join(kernel, []string{"internal/cli/...", "internal/sitecli", "internal/sitecli/bootfile", "internal/app", "internal/app/task", "internal/app/appapi", "internal/app/appschema", "internal/app/bundle", "internal/enroll", "internal/event", "internal/ociclient", "internal/upkeep", "internal/upgrade/check", "internal/upgrade/check/...", "api/...", "examples"}), never: join(nats, wazero, apiserver),
			reason: "the command line talks to a hub; what starts one is handed in by cmd"},
		{pkgs: []string{"internal/sitecli", "internal/sitecli/..."}, ours: join(kernel, []string{"internal/app", "internal/enroll", "internal/site", "internal/sitecli/bootfile"}), never: join(kubernetes, nats, wazero, containerOS),
			reason: "the verbs of skerry-site are linked into the small binary"},
		{pkgs: []string{"cmd/skerry-site"}, never: join(kubernetes, natsServer, containerOS),
			reason: "the box agent has no Kubernetes and no NATS server inside: it must stay below 40 MB"},
	}
}

// onlyImporters names, for libraries that are heavy or dangerous to spread, the packages that may import
// them at all.
var onlyImporters = []struct {
	library string
	pkgs    []string
	reason  string
}{
	{"k8s.io/kubernetes", []string{"internal/kube"}, "the API server has process-wide state and 100 MB: one package knows it"},
	{"go.etcd.io/etcd/server", []string{"internal/kube"}, "etcd's server is a part of the API server"},
	{"github.com/nats-io/nats-server", []string{"internal/natsserver"}, "one package knows how rights on the bus are given"},
	{"github.com/tetratelabs/wazero", []string{"internal/app/wasm", "test/bench/wasm"}, "one package knows where the engine's own limits end"},
	{"github.com/santhosh-tekuri/jsonschema", []string{"internal/app/appschema"}, "one package keeps it from loading anything and bounds what it may cost"},
	{"go.yaml.in/yaml/v3", []string{"internal/upgrade/check/manifest"}, "one package bounds what parsing manifests may cost, and types scalars as kubectl does"},
	{"k8s.io/pod-security-admission", []string{"internal/upgrade/check/podsecurity"}, "one package asks it"},
	{"github.com/hanwen/go-fuse", []string{"test/fault/powercut"}, "a file system of our own is for tests"},
	{"go.etcd.io/bbolt", []string{"internal/store"}, "one package decides how a site's data is kept"},
}

type listed struct {
	path    string
	imports []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []listed
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkgs = append(pkgs, listed{path: rel(fields[0]), imports: fields[1:]})
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

func rel(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

func match(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	ok, err := path.Match(pattern, pkg)
	return ok && err == nil
}

func matchAny(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if match(p, pkg) {
			return true
		}
	}
	return false
}

func TestImportRules(t *testing.T) {
	pkgs := listPackages(t)
	for _, r := range rules() {
		seen := false
		for _, p := range pkgs {
			if !matchAny(r.pkgs, p.path) {
				continue
			}
			seen = true
			for _, imp := range p.imports {
				if strings.HasPrefix(imp, module+"/") && r.ours != nil && !matchAny(r.ours, rel(imp)) {
					t.Errorf("%s must not import %s: %s", p.path, rel(imp), r.reason)
				}
				for _, banned := range r.never {
					if strings.HasPrefix(imp, banned) {
						t.Errorf("%s must not import %s: %s", p.path, imp, r.reason)
					}
				}
			}
		}
		if !seen {
			t.Errorf("no package matches %v: the rule is out of date", r.pkgs)
		}
	}
}

func TestOnlyImporters(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, o := range onlyImporters {
			for _, imp := range p.imports {
				if (imp == o.library || strings.HasPrefix(imp, o.library+"/")) && !matchAny(o.pkgs, p.path) {
					t.Errorf("%s must not import %s, only %v may: %s", p.path, imp, o.pkgs, o.reason)
				}
			}
		}
	}
}
