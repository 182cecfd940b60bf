package docs

import (
	"fmt"
	"os"
	"strings"

	"github.com/skerry-dev/skerry/internal/cli/checkcli"
	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// writeRules writes the page of the rules of `skerry check`, each with the examples that are its tests.
func writeRules(file string) error {
	rules, err := checkcli.Rules()
	if err != nil {
		return fmt.Errorf("rules of check: %w", err)
	}
	var b strings.Builder
	b.WriteString("# Rules of skerry check\n\nWhat `skerry check` finds; [the guide](../guides/check.md) says how to use it. The examples are the rules' own tests.\n" +
		"Severities are the usual ones; those of Pod Security are errors once `--pod-security` names a level.\n\n" +
		"Generated from `internal/upgrade/check` by `make generate`.\n\n| rule | severity | what is found |\n| --- | --- | --- |\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", r.ID, strings.ToLower(r.ID), r.Severity, r.Title)
	}
	for _, r := range rules {
		b.WriteString(rulePage(r))
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write rules of check: %w", err)
	}
	return nil
}

func rulePage(r check.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n%s. %s\n", r.ID, r.Title, r.Why)
	var flags []string
	if r.Kubernetes != "" {
		flags = append(flags, "--kubernetes "+r.Kubernetes)
	}
	if r.PodSecurity != "" {
		flags = append(flags, "--pod-security "+r.PodSecurity)
	}
	with := ""
	if len(flags) > 0 {
		with = ", with `" + strings.Join(flags, " ") + "`"
	}
	fmt.Fprintf(&b, "\nFound%s:\n\n```yaml\n%s```\n", with, r.Fails)
	if r.Passes != "" {
		fmt.Fprintf(&b, "\nNot found:\n\n```yaml\n%s```\n", r.Passes)
	}
	return b.String()
}
