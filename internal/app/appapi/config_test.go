package appapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func raw(text string) *runtime.RawExtension { return &runtime.RawExtension{Raw: []byte(text)} }

// from names ConfigMaps: "name" or "name/key", with a "?" at the end when it is optional.
func from(names ...string) []v1alpha1.ValuesSource {
	var out []v1alpha1.ValuesSource
	for _, n := range names {
		n, optional := strings.CutSuffix(n, "?")
		name, key, _ := strings.Cut(n, "/")
		out = append(out, v1alpha1.ValuesSource{ConfigMapRef: v1alpha1.ConfigMapValues{Name: name, Key: key, Optional: optional}})
	}
	return out
}

func byLabel(key, value, values string) v1alpha1.ValuesOverride {
	return v1alpha1.ValuesOverride{Sites: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}, Values: *raw(values)}
}

func byName(site, values string) v1alpha1.ValuesOverride {
	return v1alpha1.ValuesOverride{Site: site, Values: *raw(values)}
}

// inputs are all that an app's configuration is made of.
type inputs struct {
	app        *v1alpha1.App
	bundle     appapi.Resolved
	configMaps appapi.ConfigMaps
}

func bare() inputs {
	a := hello()
	a.Spec.Env = nil
	return inputs{a, resolved(), appapi.ConfigMaps{
		"flat": {"port": "7", "tls.on": "yes"}, "shops": {"values.yaml": "port: 8 # of the shops\ntls: {up: true}\n", "list": "[1]", "bad": "a: [", "twice": "a: 1\na: 2", "none": ""},
	}}
}

func (in inputs) defaults(values string) inputs {
	in.bundle.Config.Defaults = &app.Defaults{Values: json.RawMessage(values)}
	return in
}

func (in inputs) freeze() (*v1alpha1.Release, error) {
	return appapi.Freeze(in.app, in.bundle, in.configMaps)
}

var shop1 = fleet.Facts{Name: "shop-1", Zone: "north", Labels: map[string]string{"kind": "shop", "tier": "small"}}

// TestOrder gives one value in two or more places each: the order is the documented one.
func TestOrder(t *testing.T) {
	tests := []struct {
		change func(*inputs)
		want   string
		reason string
	}{
		{func(*inputs) {}, `{"port":1}`, "the bundle's defaults when nobody says more"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("flat") }, `{"port":"7","tls.on":"yes"}`, "a ConfigMap wins over the bundle; as a whole it is strings under its own keys"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("flat", "shops/values.yaml") }, `{"port":8,"tls":{"up":true},"tls.on":"yes"}`, "a later ConfigMap wins over an earlier one"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("shops/values.yaml", "flat") }, `{"port":"7","tls":{"up":true},"tls.on":"yes"}`, "in the order of the list"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("nobody?", "shops/nobody?", "shops/none") }, `{"port":1}`, "what is missing and may be, and an entry that is empty, say nothing"},
		{func(in *inputs) {
			in.app.Spec.ValuesFrom, in.app.Spec.Values = from("shops/values.yaml"), raw(`{"port":9}`)
		}, `{"port":9,"tls":{"up":true}}`, "the App's own values win over ConfigMaps"},
		{func(in *inputs) {
			in.app.Spec.Values = raw(`{"port":9}`)
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byLabel("kind", "shop", `{"port":10}`)}
		}, `{"port":10}`, "an override by label wins over values"},
		{func(in *inputs) {
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byLabel("kind", "shop", `{"port":10,"a":1}`), byLabel("tier", "small", `{"port":11}`)}
		}, `{"a":1,"port":11}`, "of two that match the later one wins"},
		{func(in *inputs) {
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byName("shop-1", `{"port":12}`), byLabel("kind", "shop", `{"port":10}`)}
		}, `{"port":12}`, "the one for the site by name wins wherever it stands in the list"},
		{func(in *inputs) {
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byName("shop-1", `{"port":12}`), byName("shop-1", `{"port":13}`)}
		}, `{"port":13}`, "of two by name the later one wins"},
		{func(in *inputs) {
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byName("shop-2", `{"port":12}`), byLabel("tier", "large", `{"port":10}`)}
		}, `{"port":1}`, "those for other sites say nothing"},
		{func(in *inputs) {
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{{Sites: &metav1.LabelSelector{}, Values: *raw(`{"port":null}`)}}
		}, `{}`, "an empty selector is every site, and null removes what was below"},
		{func(in *inputs) {
			in.app.Spec.Values = raw(`{"port":null}`)
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byName("shop-1", `{"port":5}`)}
		}, `{"port":5}`, "what was removed may come back later"},
	}
	for _, tt := range tests {
		in := bare().defaults(`{"port":1}`)
		tt.change(&in)
		release, err := in.freeze()
		if err != nil {
			t.Errorf("%s: %v", tt.reason, err)
			continue
		}
		p, err := appapi.Render(release, shop1)
		if err != nil || p.Config == nil {
			t.Errorf("%s: %v", tt.reason, err)
			continue
		}
		if diff := cmp.Diff(tt.want, string(p.Config.Values)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.reason, diff)
		}
	}
}

// TestFreezeConfigNames changes each input of the configuration: what a site could get decides the name.
func TestFreezeConfigNames(t *testing.T) {
	base := func() inputs {
		in := bare().defaults(`{"port":1}`)
		in.app.Spec.ValuesFrom = from("shops/values.yaml", "nobody?")
		in.app.Spec.Values = raw(`{"a":1,"b":{"c":2.0,"d":3}}`)
		in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byLabel("kind", "shop", `{"x":1,"y":2}`), byName("shop-1", `{}`)}
		in.app.Spec.Files = []v1alpha1.ConfigFile{{Path: "a.conf", Content: "a"}, {Path: "b.conf", Content: "b"}}
		in.bundle.Config.Defaults.Files = map[string]string{"c.conf": "c"}
		in.bundle.Config.Process = &app.ProcessConfig{Env: map[string]string{"PLAIN": "x", "REF": "${values.a}"}}
		return in
	}
	tests := []struct {
		reason string
		same   bool
		change func(*inputs)
	}{
		{"the same inputs", true, func(*inputs) {}},
		{"maps have no order, and numbers one way to be written", true, func(in *inputs) {
			in.app.Spec.Values = raw(`{ "b":{"d":3,"c":2}, "a":1 }`)
			in.app.Spec.Overrides[0].Values = *raw(`{"y":2,"x":1e0}`)
		}},
		{"files have none either", true, func(in *inputs) {
			in.app.Spec.Files[0], in.app.Spec.Files[1] = in.app.Spec.Files[1], in.app.Spec.Files[0]
		}},
		{"a comment in a ConfigMap, and entries that the app does not name", true, func(in *inputs) {
			in.configMaps["shops"] = map[string]string{"values.yaml": "tls:\n  up: true\nport: 8\n", "other": "x"}
		}},
		{"a value that is elsewhere and ends the same", true, func(in *inputs) {
			in.app.Spec.ValuesFrom, in.app.Spec.Values = nil, raw(`{"port":8,"tls":{"up":true},"a":1,"b":{"c":2,"d":3}}`)
		}},
		{"a variable of the bundle without references: the bundle's digest says it", true, func(in *inputs) { in.bundle.Config.Process.Env["PLAIN"] = "y" }},
		{"a value of the bundle that shows", false, func(in *inputs) { in.bundle.Config.Defaults.Values = json.RawMessage(`{"port":1,"new":1}`) }},
		{"a value", false, func(in *inputs) { in.app.Spec.Values = raw(`{"a":2,"b":{"c":2,"d":3}}`) }},
		{"a value of another type", false, func(in *inputs) { in.app.Spec.Values = raw(`{"a":"1","b":{"c":2,"d":3}}`) }},
		{"a ConfigMap", false, func(in *inputs) { in.configMaps["shops"]["values.yaml"] = "port: 9" }},
		{"an optional ConfigMap that came", false, func(in *inputs) { in.configMaps["nobody"] = map[string]string{"k": "v"} }},
		{"an override", false, func(in *inputs) { in.app.Spec.Overrides[1].Values = *raw(`{"z":1}`) }},
		{"whom an override is for", false, func(in *inputs) { in.app.Spec.Overrides[1].Site = "shop-2" }},
		{"the order of overrides", false, func(in *inputs) {
			in.app.Spec.Overrides[0], in.app.Spec.Overrides[1] = in.app.Spec.Overrides[1], in.app.Spec.Overrides[0]
		}},
		{"a file", false, func(in *inputs) { in.app.Spec.Files[0].Content = "x" }},
		{"a file of the bundle that the app replaces", false, func(in *inputs) { in.app.Spec.Files[0].Path = "c.conf" }},
		{"a variable of the bundle with references", false, func(in *inputs) { in.bundle.Config.Process.Env["REF"] = "${site.name}" }},
	}
	first, err := base().freeze()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		for range 3 {
			in := base()
			tt.change(&in)
			got, err := in.freeze()
			if err != nil {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			if (got.Name == first.Name) != tt.same {
				t.Errorf("release is %s, before %s: %s", got.Name, first.Name, tt.reason)
			}
		}
	}
	// The name is frozen: a hub of another version must not make every release anew.
	if want := "hello-cec21a85e2"; first.Name != want {
		t.Errorf("release is %s, want %s", first.Name, want)
	}
}

// TestFreezeConfigDoesNotShare changes the app after it was frozen.
func TestFreezeConfigDoesNotShare(t *testing.T) {
	in := bare()
	in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byLabel("kind", "shop", `{"a":1}`)}
	release, err := in.freeze()
	if err != nil {
		t.Fatal(err)
	}
	before := release.DeepCopy()
	in.app.Spec.Overrides[0].Sites.MatchLabels["kind"], in.app.Spec.Overrides[0].Values.Raw[2] = "depot", 'x'
	if diff := cmp.Diff(before, release); diff != "" {
		t.Errorf("changing the app changed what was frozen (-before +after):\n%s", diff)
	}
}

func TestRenderConfig(t *testing.T) {
	in := bare().defaults(`{"port":1,"name":"till"}`)
	in.bundle.Config.Defaults.Files = map[string]string{"app.conf": "old", "conf.d/site": "${site.name} ${site.zone} ${site.labels.tier}"}
	in.bundle.Config.Process = &app.ProcessConfig{Env: map[string]string{"PLAIN": "x", "LISTEN": ":${values.port}", "NAME": "${values.name}"}}
	in.app.Spec.Env = map[string]v1alpha1.EnvValue{"NAME": "mine", "WHO": "${site.name:-x}", "COST": "$5"}
	in.app.Spec.Files = []v1alpha1.ConfigFile{{Path: "app.conf", Content: "port=${values.port} raw=$${x}\n"}}
	in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byLabel("tier", "large", `{"port":2}`)}
	release, err := in.freeze()
	if err != nil {
		t.Fatal(err)
	}
	before := release.DeepCopy()
	renderer, err := appapi.NewRenderer(release)
	if err != nil {
		t.Fatal(err)
	}
	render := func(facts fleet.Facts) app.Placement {
		t.Helper()
		p, err := renderer.Render(facts)
		if err != nil {
			t.Fatal(err)
		}
		alone, err := appapi.Render(release, facts)
		if diff := cmp.Diff(alone, p); err != nil || diff != "" {
			t.Errorf("a site alone gets something else: %v (-alone +together):\n%s", err, diff)
		}
		section := app.Section{Facts: facts, Apps: []app.Placement{p}}
		data, err := section.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := app.DecodeSection(data); err != nil || cmp.Diff(section, got) != "" {
			t.Errorf("what a site reads differs: %v\n%s", err, cmp.Diff(section, got))
		}
		return p
	}
	first := render(shop1)
	if diff := cmp.Diff(map[string]string{"LISTEN": ":1", "NAME": "mine", "WHO": "shop-1", "COST": "$5"}, first.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	want := map[string]string{"values.json": `{"name":"till","port":1}` + "\n", "app.conf": "port=1 raw=${x}\n", "conf.d/site": "shop-1 north small"}
	if diff := cmp.Diff(want, first.Config.Contents()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	other := render(fleet.Facts{Name: "shop-2", Zone: "south", Labels: map[string]string{"kind": "shop", "tier": "large"}})
	want = map[string]string{"values.json": `{"name":"till","port":2}` + "\n", "app.conf": "port=2 raw=${x}\n", "conf.d/site": "shop-2 south large"}
	if diff := cmp.Diff(want, other.Config.Contents()); diff != "" {
		t.Errorf("files elsewhere (-want +got):\n%s", diff)
	}
	unused := shop1
	unused.Labels = map[string]string{"kind": "depot", "tier": "small"}
	if render(unused).Digest != first.Digest {
		t.Error("a label that nothing refers to changes what the site gets")
	}
	if diff := cmp.Diff(before, release); diff != "" {
		t.Errorf("rendering changed the release (-before +after):\n%s", diff)
	}

	in = bare()
	in.app.Spec.Env = map[string]v1alpha1.EnvValue{"A": "${site.name}"}
	if release, err = in.freeze(); err != nil || release.Spec.Config != nil {
		t.Fatalf("a reference to the site alone freezes a configuration: %v, %v", release, err)
	}
	if p, err := appapi.Render(release, shop1); err != nil || p.Config != nil || p.Env["A"] != "shop-1" {
		t.Errorf("it is rendered as %+v, %v", p, err)
	}
}

// TestConfigErrors wants each mistake to be told with its field and the reason of the condition, as soon as it can
// be known: when the release is frozen, or for a site.
func TestConfigErrors(t *testing.T) {
	const missing, values, config = v1alpha1.ReasonConfigMapNotFound, v1alpha1.ReasonValuesInvalid, v1alpha1.ReasonConfigInvalid
	big := strings.Repeat("x", 60_000)
	tests := []struct {
		change              func(*inputs)
		reason, field, says string
		atSite              bool
		why                 string
	}{
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("flat", "nobody") }, missing, "spec.valuesFrom[1].configMapRef", `no ConfigMap "nobody"`, false, "a ConfigMap that is not there"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("shops/nobody") }, missing, "spec.valuesFrom[0].configMapRef", `ConfigMap "shops" has no key "nobody"`, false, "a key that is not there"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("shops/list") }, values, "spec.valuesFrom[0].configMapRef", "ConfigMap shops, key list: want an object", false, "a list holds no values"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("shops/bad") }, values, "spec.valuesFrom[0].configMapRef", "key bad: ", false, "no YAML"},
		{func(in *inputs) { in.app.Spec.ValuesFrom = from("shops/twice") }, values, "spec.valuesFrom[0].configMapRef", "already", false, "one name twice"},
		{func(in *inputs) {
			in.app.Spec.Values = raw(`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`)
		}, values, "spec.values", "more than 32 deep", false, "values in values"},
		{func(in *inputs) { in.app.Spec.Values = raw(`[]`) }, values, "spec.values", "want an object", false, "the schema refuses this; it must not panic"},
		{func(in *inputs) { in.app.Spec.Values = raw(`{`) }, values, "spec.values", "unexpected end", false, "so it does this"},
		{func(in *inputs) { in.app.Spec.Overrides = []v1alpha1.ValuesOverride{{Values: *raw(`{}`)}} }, values, "spec.overrides[0]", "set one of sites and site", false, "an override for nobody"},
		{func(in *inputs) { in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byName("shop-9", `[]`)} }, values, "spec.overrides[0].values", "want an object", false, "an override of a list, for whichever site"},
		{func(in *inputs) {
			in.app.Spec.Overrides = []v1alpha1.ValuesOverride{byName("a", `{}`), byLabel("-x", "y", `{}`)}
		}, values, "spec.overrides[1].sites", "-x", false, "a selector that cannot be read"},
		{func(in *inputs) {
			in.bundle.Config.Process = &app.ProcessConfig{Env: map[string]string{"A": "${x}"}}
		}, v1alpha1.ReasonBundleInvalid, "spec.source.bundle", `variable "A": ${x}`, false, "a bundle that no `skerry push` makes"},
		{func(in *inputs) { in.app.Spec.Env = map[string]v1alpha1.EnvValue{"B": "${x}", "C": "${y}"} }, config, "spec.env[B]", "${x}", false, "a malformed reference, the first by name"},
		{func(in *inputs) { in.app.Spec.Files = []v1alpha1.ConfigFile{{Path: "a", Content: "${"}} }, config, "spec.files[a]", "${: want values or site", false, "one in a file"},
		{func(in *inputs) { in.app.Spec.Files = []v1alpha1.ConfigFile{{Path: "../a"}} }, config, "spec.files", "../a", false, "the schema refuses this path; a site must not see it"},
		{func(in *inputs) {
			for n := range 10 {
				in.app.Spec.Overrides = append(in.app.Spec.Overrides, byName(fmt.Sprint(n), `{"a":"`+big+`"}`))
			}
		}, config, "spec", "at most 524288 are allowed", false, "more than a release may hold"},
		{func(in *inputs) { in.app.Spec.Env = map[string]v1alpha1.EnvValue{"A": "${values.nobody}"} }, config, "spec.env[A]", "there is no values.nobody (at site shop-1)", true, "a value that is not there"},
		{func(in *inputs) {
			in.app.Spec.Files = []v1alpha1.ConfigFile{{Path: "a", Content: "${site.labels.nobody}"}}
		}, config, "spec.files[a]", `site shop-1 has no label "nobody"`, true, "a label that is not there"},
		{func(in *inputs) {
			in.app.Spec.Values, in.app.Spec.Env = raw(`{"a":"x\u0000y"}`), map[string]v1alpha1.EnvValue{"A": "${values.a}"}
		}, config, "spec.env[A]", "zero byte", true, "a variable ends at a zero byte"},
		{func(in *inputs) { in.app.Spec.Values = raw(`{"a":"` + big + `","b":"` + big + `"}`) }, config, "spec", "at most 65536 are allowed", true, "more than a site is told"},
		{func(in *inputs) {
			env := map[string]string{}
			for n := range 10_000 {
				env[fmt.Sprintf("A%d", n)] = fmt.Sprintf("${values.a}%d", n)
			}
			in.bundle.Config.Process, in.app.Spec.Values = &app.ProcessConfig{Env: env}, raw(`{"a":"`+big+`"}`)
		}, config, "spec", "at most 65536 are allowed", true, "so do many variables, of which the first two are looked at"},
		{func(in *inputs) {
			in.app.Spec.Env = map[string]v1alpha1.EnvValue{}
			for n := range 256 {
				in.app.Spec.Env[fmt.Sprintf("A%d", n)] = v1alpha1.EnvValue(strings.Repeat("x", 4096))
			}
		}, config, "spec", "at most 524288 are allowed", false, "more variables than a release may hold"},
		{func(in *inputs) {
			in.app.Spec.Values, in.app.Spec.Files = raw(`{"a":"`+big+`"}`), []v1alpha1.ConfigFile{{Path: "a", Content: "${values.a}${values.a}"}}
		}, config, "spec.files[a]", "more than 65536 bytes", true, "references that make much of little"},
	}
	for _, tt := range tests {
		in := bare()
		tt.change(&in)
		release, err := in.freeze()
		if tt.atSite {
			if err != nil {
				t.Errorf("%s: freeze: %v", tt.why, err)
				continue
			}
			_, err = appapi.Render(release, shop1)
		}
		e, ok := appapi.AsConfigError(err)
		if !ok || e.Reason != tt.reason || e.Field.String() != tt.field || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: want %s of %s that says %q, got %v", tt.why, tt.reason, tt.field, tt.says, err)
		}
		if ok && (e.Site != "") != tt.atSite {
			t.Errorf("%s: site is %q", tt.why, e.Site)
		}
		if !errors.Is(err, app.ErrConfig) {
			t.Errorf("%s: %v is no app.ErrConfig", tt.why, err)
		}
	}
}

func TestBlame(t *testing.T) {
	in := bare().defaults(`{"port":1,"tls":{"on":true},"lanes":[{"n":1}]}`)
	in.app.Spec.ValuesFrom, in.app.Spec.Values = from("shops/values.yaml"), raw(`{"name":"x","list":[[0]]}`)
	layers, err := appapi.Layers(in.app, in.bundle.Config, in.configMaps)
	if err != nil {
		t.Fatal(err)
	}
	override := appapi.Layer{Field: layers[2].Field.Root().Child("overrides").Index(3).Child("values"), Values: map[string]any{"name": "y", "gone": nil}}
	layers = append(layers, override)
	tests := []struct {
		violation app.Violation
		want      string
		reason    string
	}{
		{app.Violation{Path: []string{"name"}, Message: "bad"}, "spec.overrides[3].values.name: bad (at site shop-1)", "the last one that says it"},
		{app.Violation{Path: []string{"list", "0", "0"}, Message: "bad"}, "spec.values.list[0][0]: bad (at site shop-1)", "items of lists"},
		{app.Violation{Path: []string{"port"}, Message: "bad"}, "spec.valuesFrom[0].configMapRef: ConfigMap shops, key values.yaml: port: bad (at site shop-1)", "a ConfigMap is named"},
		{app.Violation{Path: []string{"lanes", "0", "n"}, Message: "bad"}, "spec.source.bundle: values of the bundle: lanes.0.n: bad (at site shop-1)", "the bundle is named"},
		{app.Violation{Missing: "nobody", Message: `"nobody" is missing`}, `spec.values: "nobody" is missing (at site shop-1)`, "what nobody says belongs into the app's values"},
		{app.Violation{Path: []string{"tls"}, Missing: "port", Message: `"port" is missing`}, `spec.values.tls: "port" is missing (at site shop-1)`, "inside a map too"},
		{app.Violation{Missing: "gone", Message: `"gone" is missing`}, `spec.overrides[3].values: "gone" is missing (at site shop-1)`, "the one that removed it"},
		{app.Violation{Path: []string{"a.b"}, Message: "bad"}, `spec.values.a.b: bad (at site shop-1)`, "a name with a dot"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, appapi.Blame(layers, &tt.violation, "shop-1").Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.reason, diff)
		}
	}
}

// BenchmarkRender renders 10 KiB of configuration for a thousand sites, half of which have an override of
// their own.
func BenchmarkRender(b *testing.B) {
	in := bare()
	var text strings.Builder
	for n := range 200 {
		fmt.Fprintf(&text, `"key%d":{"name":"value %d","port":%d},`, n, n, n)
	}
	in.app.Spec.Values = raw("{" + strings.TrimSuffix(text.String(), ",") + "}")
	in.app.Spec.Files = []v1alpha1.ConfigFile{{Path: "a.conf", Content: "site ${site.name} port ${values.key1.port}"}}
	for n := range 500 {
		in.app.Spec.Overrides = append(in.app.Spec.Overrides, byName(fmt.Sprintf("shop-%d", n), `{"key1":{"port":9}}`))
	}
	release, err := in.freeze()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		renderer, err := appapi.NewRenderer(release)
		if err != nil {
			b.Fatal(err)
		}
		for n := range 1000 {
			if _, err := renderer.Render(fleet.Facts{Name: fleet.SiteName(fmt.Sprintf("shop-%d", n))}); err != nil {
				b.Fatal(err)
			}
		}
	}
}
