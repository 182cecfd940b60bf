package appschema

import (
	"fmt"
	"reflect"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/skerry-dev/skerry/internal/app"
)

// Bounds of what validating may cost. A step is one schema applied to one value.
const (
	// maxSteps that the library may take: a fraction of a second.
	maxSteps = 200_000
	// maxPairs of one schema and one value that are looked at to count them.
	maxPairs = 200_000
)

// affordable reports whether validating values stays within the bounds. Schemas can say little that means
// very much: alternatives in alternatives double the work each time. The steps are counted without being
// taken, since each pair of schema and value is counted once, whatever the ways that lead to it.
func affordable(root *jsonschema.Schema, values map[string]any) error {
	c := counter{known: map[pair]int{}}
	if n := c.steps(root, values); n > maxSteps || len(c.known) > maxPairs {
		return fmt.Errorf("values.schema.json: checking these values would take too long; use fewer alternatives (anyOf, oneOf) in each other: %w", app.ErrConfig)
	}
	if c.dynamic {
		return fmt.Errorf("values.schema.json: $dynamicRef and $recursiveRef are not supported; use $ref: %w", app.ErrConfig)
	}
	return nil
}

type pair struct {
	schema *jsonschema.Schema
	// value is the identity of a map or list. Of other values it is what their cost depends on.
	value uintptr
}

type counter struct {
	known   map[pair]int
	dynamic bool
}

// steps returns how many it takes to validate v with s, or more; never more than one above maxSteps.
func (c *counter) steps(s *jsonschema.Schema, v any) int {
	if s == nil || len(c.known) > maxPairs {
		return 0
	}
	p := pair{schema: s}
	switch v := v.(type) {
	case map[string]any, []any:
		p.value = reflect.ValueOf(v).Pointer()
	case string:
		p.value = ^uintptr(len(v)) // no address is as high
	}
	if n, ok := c.known[p]; ok {
		return n
	}
	c.known[p] = 0 // a schema that leads back to itself at the same value is an error of the library
	n := 1 + weigh(s, v)
	add := func(more int) { n = min(n+more, maxSteps+1) }
	for _, sub := range inPlace(s) {
		add(c.steps(sub, v))
	}
	c.dynamic = c.dynamic || s.DynamicRef != nil || s.RecursiveRef != nil
	switch v := v.(type) {
	case map[string]any:
		for name, item := range v {
			add(c.steps(s.PropertyNames, name))
			add(c.steps(s.Properties[name], item))
			for _, sub := range s.PatternProperties {
				add(1 + c.steps(sub, item))
			}
			add(c.stepsAny(s.AdditionalProperties, item))
			add(c.steps(s.UnevaluatedProperties, item))
		}
	case []any:
		for i, item := range v {
			if i < len(s.PrefixItems) {
				add(c.steps(s.PrefixItems[i], item))
			}
			if list, ok := s.Items.([]*jsonschema.Schema); ok && i < len(list) {
				add(c.steps(list[i], item))
			}
			add(c.stepsAny(s.Items, item))
			add(c.stepsAny(s.AdditionalItems, item))
			add(c.steps(s.Items2020, item))
			add(c.steps(s.Contains, item))
			add(c.steps(s.UnevaluatedItems, item))
		}
	}
	c.known[p] = n
	return n
}

func (c *counter) stepsAny(s any, v any) int {
	sub, _ := s.(*jsonschema.Schema)
	return c.steps(sub, v)
}

// inPlace lists the schemas that s applies to its own value.
func inPlace(s *jsonschema.Schema) []*jsonschema.Schema {
	out := []*jsonschema.Schema{s.Ref, s.Not, s.If, s.Then, s.Else, s.ContentSchema}
	out = append(out, s.AllOf...)
	out = append(out, s.AnyOf...)
	out = append(out, s.OneOf...)
	for _, sub := range s.DependentSchemas {
		out = append(out, sub)
	}
	for _, sub := range s.Dependencies {
		if sub, ok := sub.(*jsonschema.Schema); ok {
			out = append(out, sub)
		}
	}
	return out
}

// weigh is the work of a schema at one value beside its parts.
func weigh(s *jsonschema.Schema, v any) int {
	n := 0
	if s.Enum != nil {
		n += len(s.Enum.Values)
	}
	if text, ok := v.(string); ok && (s.Pattern != nil || s.Format != nil) {
		n += len(text) / 16
	}
	if list, ok := v.([]any); ok && s.UniqueItems {
		n += len(list)
	}
	return n
}
