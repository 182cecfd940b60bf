// Package docs writes the pages that are generated from the program itself: one a command, one a kind, and one of the
// rules of `skerry check`. It
// is a hidden command of skerry, which `make generate` runs; only cmd imports it.
package docs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/config"
)

// Command writes the pages of the command tree that root makes, and of the kinds.
func Command(root func() *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "generate-docs DIR",
		Short:  "Write docs/cli and docs/reference",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return errors.Join(writeCLI(root(), filepath.Join(args[0], "cli")), writeReference(filepath.Join(args[0], "reference")),
				writeRules(filepath.Join(args[0], "reference", "check-rules.md")))
		},
	}
}

func writeCLI(root *cobra.Command, dir string) error {
	if err := freshDir(dir); err != nil {
		return err
	}
	disableTags(root)
	if err := doc.GenMarkdownTree(root, dir); err != nil {
		return fmt.Errorf("write pages of commands: %w", err)
	}
	return nil
}

func freshDir(dir string) error {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return nil
}

// disableTags leaves the date out of every page, so that the same source makes the same page.
func disableTags(c *cobra.Command) {
	c.DisableAutoGenTag = true
	for _, sub := range c.Commands() {
		disableTags(sub)
	}
}

func writeReference(dir string) error {
	if err := freshDir(dir); err != nil {
		return err
	}
	entries, err := config.CRDs.ReadDir("crd")
	if err != nil {
		return fmt.Errorf("read types: %w", err)
	}
	for _, e := range entries {
		data, err := config.CRDs.ReadFile("crd/" + e.Name())
		if err != nil {
			return fmt.Errorf("read type: %w", err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(data, &crd); err != nil {
			return fmt.Errorf("type %s: %w", e.Name(), err)
		}
		page := referencePage(&crd)
		if err := os.WriteFile(filepath.Join(dir, strings.ToLower(crd.Spec.Names.Kind)+".md"), []byte(page), 0o644); err != nil {
			return fmt.Errorf("write reference: %w", err)
		}
	}
	return nil
}

func referencePage(crd *apiextensionsv1.CustomResourceDefinition) string {
	var b strings.Builder
	version := crd.Spec.Versions[0]
	schema := version.Schema.OpenAPIV3Schema
	fmt.Fprintf(&b, "# %s\n\n`%s/%s`, %s, `kubectl get %s`", crd.Spec.Names.Kind, crd.Spec.Group, version.Name, strings.ToLower(string(crd.Spec.Scope)), crd.Spec.Names.Plural)
	for _, short := range crd.Spec.Names.ShortNames {
		fmt.Fprintf(&b, " or `%s`", short)
	}
	fmt.Fprintf(&b, "\n\n%s\n\nGenerated from `api/v1alpha1` by `make generate`.\n\n", schema.Description)
	for _, part := range []string{"spec", "status"} {
		if s, ok := schema.Properties[part]; ok {
			fmt.Fprintf(&b, "## %s\n\n| field | type | default | meaning and bounds |\n| --- | --- | --- | --- |\n", part)
			writeFields(&b, part, s)
			b.WriteString("\n")
		}
	}
	return b.String()
}

// writeFields writes a row a field, depth first, in alphabetical order.
func writeFields(b *strings.Builder, path string, s apiextensionsv1.JSONSchemaProps) {
	if s.Items != nil && s.Items.Schema != nil {
		writeFields(b, path+"[]", *s.Items.Schema)
		return
	}
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p := s.Properties[name]
		field := path + "." + name
		def := ""
		if p.Default != nil {
			def = "`" + string(p.Default.Raw) + "`"
		}
		required := ""
		if slices.Contains(s.Required, name) {
			required = " (required)"
		}
		fmt.Fprintf(b, "| `%s` | %s%s | %s | %s |\n", field, typeName(p), required, def, cell(p))
		writeFields(b, field, p)
	}
}

func typeName(p apiextensionsv1.JSONSchemaProps) string {
	switch {
	case p.XIntOrString:
		return "integer or string"
	case p.Type == "array" && p.Items != nil && p.Items.Schema != nil:
		return "list of " + typeName(*p.Items.Schema)
	case p.Type == "object" && p.AdditionalProperties != nil && p.AdditionalProperties.Schema != nil:
		return "map of " + typeName(*p.AdditionalProperties.Schema)
	case p.Format != "":
		return p.Type + " (" + p.Format + ")"
	}
	return p.Type
}

func cell(p apiextensionsv1.JSONSchemaProps) string {
	parts := []string{strings.Join(strings.Fields(p.Description), " ")}
	if len(p.Enum) > 0 {
		var values []string
		for _, e := range p.Enum {
			values = append(values, "`"+string(e.Raw)+"`")
		}
		parts = append(parts, "One of "+strings.Join(values, ", ")+".")
	}
	if p.Pattern != "" {
		parts = append(parts, "Matches `"+p.Pattern+"`.")
	}
	if p.MaxLength != nil {
		parts = append(parts, fmt.Sprintf("At most %d characters.", *p.MaxLength))
	}
	if p.MaxItems != nil {
		parts = append(parts, fmt.Sprintf("At most %d entries.", *p.MaxItems))
	}
	for _, v := range p.XValidations {
		parts = append(parts, "Rule: "+v.Message+".")
	}
	return strings.ReplaceAll(strings.TrimSpace(strings.Join(parts, " ")), "|", "\\|")
}
