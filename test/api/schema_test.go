package apitest

import (
	"fmt"
	"io/fs"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/config"
)

// apiVersion is what every object of ours carries.
const apiVersion = "skerry.dev/v1alpha1"

// kind is what the API server knows of one of our kinds: the steps of a create, without a server.
type kind struct {
	structural *schema.Structural
	values     validation.SchemaValidator
	rules      *cel.Validator
}

// loadKinds reads config/crd by kind.
func loadKinds(t *testing.T) map[string]kind {
	t.Helper()
	files, err := fs.Glob(config.CRDs, "crd/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the definitions of our kinds: %d files, error %v", len(files), err)
	}
	kinds := map[string]kind{}
	for _, file := range files {
		data, err := config.CRDs.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(crd.Spec.Versions) != 1 || crd.Spec.Group+"/"+crd.Spec.Versions[0].Name != apiVersion {
			t.Fatalf("%s: want the one version %s; teach this test about more", file, apiVersion)
		}
		k, err := newKind(crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		kinds[crd.Spec.Names.Kind] = k
	}
	return kinds
}

func newKind(props *apiextensionsv1.JSONSchemaProps) (kind, error) {
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, &internal, nil); err != nil {
		return kind{}, fmt.Errorf("convert schema: %w", err)
	}
	structural, err := schema.NewStructural(&internal)
	if err != nil {
		return kind{}, fmt.Errorf("read schema: %w", err)
	}
	values, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		return kind{}, fmt.Errorf("read schema: %w", err)
	}
	return kind{structural, values, cel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
}

// check returns what the API server would say against a new object: unknown fields (as kubectl asks for
// with strict validation), then values, then rules. It changes nothing of obj.
func (k kind) check(t *testing.T, obj map[string]any) []string {
	t.Helper()
	obj = runtime.DeepCopyJSON(obj)
	var said []string
	for _, path := range pruning.PruneWithOptions(obj, k.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		said = append(said, fmt.Sprintf("%s: there is no such field", path))
	}
	defaulting.Default(obj, k.structural)
	errs := validation.ValidateCustomResource(nil, obj, k.values)
	if k.rules != nil && len(errs) == 0 {
		found, _ := k.rules.Validate(t.Context(), nil, k.structural, obj, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, found...)
	}
	errs = append(errs, labels(obj)...)
	for _, err := range errs {
		said = append(said, err.Error())
	}
	return said
}

// labels checks those of the metadata, which no schema of ours holds.
func labels(obj map[string]any) field.ErrorList {
	metadata, _ := obj["metadata"].(map[string]any)
	given, _ := metadata["labels"].(map[string]any)
	at := field.NewPath("metadata", "labels")
	set := map[string]string{}
	for key, value := range given {
		text, ok := value.(string)
		if !ok {
			return field.ErrorList{field.Invalid(at.Key(key), value, "must be text, in quotes if YAML reads it otherwise")}
		}
		set[key] = text
	}
	return metavalidation.ValidateLabels(set, at)
}
