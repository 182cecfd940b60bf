package appapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// ConfigError is what a person must mend of an app's configuration.
type ConfigError struct {
	// Reason is that of condition Ready.
	Reason string
	// Field of the App that is to be mended.
	Field *field.Path
	// Site where it shows; empty when it does at every one.
	Site fleet.SiteName
	// Value is what the schema does not allow, and Missing says that what it wants is not there. Both are
	// zero when it is about something else.
	Value   any
	Missing bool
	Err     error
}

// Error names field, fault and site.
func (e *ConfigError) Error() string {
	at := ""
	if e.Site != "" {
		at = " (at site " + string(e.Site) + ")"
	}
	return fmt.Sprintf("%s: %v%s", e.Field, e.Err, at)
}

// Refusal is the error in the form in which the Kubernetes API refuses objects.
func (e *ConfigError) Refusal() *field.Error {
	detail := e.Err.Error()
	if e.Site != "" {
		detail += " (at site " + string(e.Site) + ")"
	}
	out := &field.Error{Type: field.ErrorTypeInvalid, Field: e.Field.String(), Detail: detail, BadValue: e.Value}
	switch e.Value.(type) {
	case bool, int64, float64:
	case string:
		out.BadValue = cutValue(e.Value.(string))
	default: // a map, a list, or no value at all
		out.BadValue = field.OmitValueType{}
	}
	if e.Missing {
		out.Type, out.BadValue = field.ErrorTypeRequired, ""
	}
	return out
}

// cutValue shortens what a refusal quotes.
func cutValue(s string) string {
	const most = 100
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}

// Unwrap returns Err and app.ErrConfig.
func (e *ConfigError) Unwrap() []error { return []error{e.Err, app.ErrConfig} }

// ConfigMaps are the ConfigMaps of the app's namespace that it names: the data of each by its name. One that
// is not there is not in it.
type ConfigMaps map[string]map[string]string

// Layer is one of the places that an app's values come from.
type Layer struct {
	// Field of the App that names it.
	Field *field.Path
	// Source names what the field leads to, such as a ConfigMap; empty when the values stand in the field.
	Source string
	Values map[string]any
}

// specPath is the root of all fields.
func specPath() *field.Path { return field.NewPath("spec") }

// Layers returns the values that hold at every site, in the order in which they are merged: those of the
// bundle, of valuesFrom, and of the app. Every error is a *ConfigError.
func Layers(a *v1alpha1.App, bundle app.BundleConfig, configMaps ConfigMaps) ([]Layer, error) {
	var layers []Layer
	add := func(at *field.Path, source string, values map[string]any, err error) error {
		if err != nil {
			if source != "" {
				err = fmt.Errorf("%s: %w", source, err)
			}
			return &ConfigError{Reason: v1alpha1.ReasonValuesInvalid, Field: at, Err: err}
		}
		layers = append(layers, Layer{at, source, values})
		return nil
	}
	if d := bundle.Defaults; d != nil && d.Values != nil {
		values, err := parseJSON(d.Values)
		if err := add(specPath().Child("source", "bundle"), "values of the bundle", values, err); err != nil {
			return nil, err
		}
	}
	for i, from := range a.Spec.ValuesFrom {
		at, ref := specPath().Child("valuesFrom").Index(i).Child("configMapRef"), from.ConfigMapRef
		source, values, err := readConfigMap(ref, configMaps)
		if errors.Is(err, errMissing) {
			return nil, &ConfigError{Reason: v1alpha1.ReasonConfigMapNotFound, Field: at, Err: err}
		}
		if err := add(at, source, values, err); err != nil {
			return nil, err
		}
	}
	if a.Spec.Values != nil {
		values, err := parseJSON(a.Spec.Values.Raw)
		if err := add(specPath().Child("values"), "", values, err); err != nil {
			return nil, err
		}
	}
	return layers, nil
}

// errMissing is wrapped by errors about a ConfigMap or key that is not there.
var errMissing = errors.New("not found")

// readConfigMap returns the values of a ConfigMap, none when they are missing and may be.
func readConfigMap(ref v1alpha1.ConfigMapValues, configMaps ConfigMaps) (source string, values map[string]any, err error) {
	have, ok := configMaps[ref.Name]
	if !ok && !ref.Optional {
		return "", nil, fmt.Errorf("there is no ConfigMap %q in the app's namespace; make it, or set optional: %w", ref.Name, errMissing)
	}
	if ref.Key == "" {
		values := make(map[string]any, len(have))
		for key, value := range have {
			values[key] = value
		}
		return "ConfigMap " + ref.Name, values, nil
	}
	text, ok := have[ref.Key]
	if !ok && !ref.Optional {
		return "", nil, fmt.Errorf("ConfigMap %q has no key %q; add it, or set optional: %w", ref.Name, ref.Key, errMissing)
	}
	values, err = parseYAML([]byte(text))
	return "ConfigMap " + ref.Name + ", key " + ref.Key, values, err
}

// parseYAML reads an object in YAML; nothing and null are an empty one.
func parseYAML(data []byte) (map[string]any, error) {
	data, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	return parseJSON(data)
}

// parseJSON reads an object in JSON; nothing and null are an empty one. Numbers are what the Kubernetes API
// makes of them, so that values are the same before and after they were stored.
func parseJSON(data []byte) (map[string]any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) > app.MaxReleaseConfigBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), app.MaxReleaseConfigBytes)
	}
	var value any
	if err := utiljson.Unmarshal(data, &value); err != nil {
		return nil, err
	}
	values, ok := value.(map[string]any)
	if !ok && value != nil {
		return nil, errors.New("want an object")
	}
	return values, app.CheckValuesDepth(values)
}

// rawValues is the inverse of parseJSON: the same values are the same bytes.
func rawValues(values map[string]any) (runtime.RawExtension, error) {
	if values == nil {
		values = map[string]any{}
	}
	data, err := json.Marshal(values)
	return runtime.RawExtension{Raw: data}, err
}

// override is an override that was read.
type override struct {
	selector func(fleet.Facts) bool
	byName   bool
	layer    Layer
}

// overrides reads those of an app or a release. Every error is a *ConfigError.
func overrides(list []v1alpha1.ValuesOverride) ([]override, error) {
	var out []override
	for i, o := range list {
		at := specPath().Child("overrides").Index(i)
		fail := func(at *field.Path, err error) error {
			return &ConfigError{Reason: v1alpha1.ReasonValuesInvalid, Field: at, Err: err}
		}
		values, err := parseJSON(o.Values.Raw)
		if err != nil {
			return nil, fail(at.Child("values"), err)
		}
		read := override{byName: o.Sites == nil, layer: Layer{Field: at.Child("values"), Values: values}}
		if o.Sites == nil && o.Site == "" {
			return nil, fail(at, errors.New("set one of sites and site"))
		}
		read.selector = func(facts fleet.Facts) bool { return string(facts.Name) == o.Site }
		if o.Sites != nil {
			selector, err := metav1.LabelSelectorAsSelector(o.Sites)
			if err != nil {
				return nil, fail(at.Child("sites"), err)
			}
			read.selector = func(facts fleet.Facts) bool { return selector.Matches(labelSet(facts)) }
		}
		out = append(out, read)
	}
	return out, nil
}

// applied returns the indices of the overrides that hold at a site, in the order in which they are merged.
func applied(all []override, facts fleet.Facts) []int {
	var out []int
	for _, byName := range []bool{false, true} {
		for i, o := range all {
			if o.byName == byName && o.selector(facts) {
				out = append(out, i)
			}
		}
	}
	return out
}

// Blame says which field of the App a violation of the schema comes from: the last layer that says anything
// of the value, or else the app's values.
func Blame(layers []Layer, v *app.Violation, site fleet.SiteName) *ConfigError {
	e := &ConfigError{Reason: v1alpha1.ReasonValuesInvalid, Field: specPath().Child("values"), Site: site, Missing: v.Missing != ""}
	path := v.Path
	if v.Missing != "" {
		path = append(slices.Clone(path), v.Missing)
	}
	for _, l := range slices.Backward(layers) {
		if !says(l.Values, path) {
			continue
		}
		e.Value = at(l.Values, path)
		if e.Field = l.Field; l.Source != "" {
			e.Err = fmt.Errorf("%s: %w", l.Source, v)
			return e
		}
		break
	}
	e.Field = below(e.Field, layers, v.Path)
	e.Err = errors.New(v.Message)
	return e
}

// says reports whether values hold path, or end on the way to it in something else than a map.
func says(values any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	m, ok := values.(map[string]any)
	if !ok {
		return true
	}
	next, ok := m[path[0]]
	return ok && says(next, path[1:])
}

// below appends the steps of a path to a field. Those into a list are numbers.
func below(from *field.Path, layers []Layer, path []string) *field.Path {
	for i, step := range path {
		n, err := strconv.Atoi(step)
		if err == nil && slices.ContainsFunc(layers, func(l Layer) bool { return isList(l.Values, path[:i]) }) {
			from = from.Index(n)
		} else {
			from = from.Child(step)
		}
	}
	return from
}

func isList(values any, path []string) bool {
	_, ok := at(values, path).([]any)
	return ok
}

// at returns what stands at a path of values, nil when nothing does.
func at(values any, path []string) any {
	for _, step := range path {
		switch here := values.(type) {
		case map[string]any:
			values = here[step]
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n < 0 || n >= len(here) {
				return nil
			}
			values = here[n]
		default:
			return nil
		}
	}
	return values
}
