package manifest

import "github.com/skerry-dev/skerry/internal/upgrade/check"

// Limits bound what is read. The zero Limits refuse everything.
type Limits struct {
	FileBytes     int64 // of one file, or of standard input
	TotalBytes    int64 // of all files
	Files         int   // that are read
	DocumentBytes int   // of one YAML document
	Objects       int   // of all files
	Depth         int   // of maps and lists in each other, Lists and ConfigMaps included
	Values        int   // of one document, names of fields included, those that an alias repeats counted each time
}

// DefaultLimits leave room for all objects of a large cluster in one List.
func DefaultLimits() Limits {
	return Limits{
		FileBytes: 256 << 20, TotalBytes: 1 << 30, Files: 100_000, DocumentBytes: 16 << 20,
		Objects: 200_000, Depth: 100, Values: 4_000_000,
	}
}

// The rules of what is read; all others look at objects.
const (
	RuleUnusable = "input-unusable"
	RuleSkipped  = "input-skipped"
)

// Rules returns the rules that this package's findings are named after.
func Rules() []check.Rule {
	return []check.Rule{
		{
			ID: RuleUnusable, Title: "The input cannot be read", Severity: check.Failure,
			Why:    "What cannot be read was not checked. The exit status is 2 whatever `--fail-on` says.",
			Fails:  "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n data: {}\n",
			Passes: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata: {}\n",
		},
		{
			ID: RuleSkipped, Title: "Something is not checked", Severity: check.Warning,
			Why:    "Charts and kustomizations are not rendered yet, and links to folders are not followed. What they would give is not checked unless it is rendered before.",
			Fails:  "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [deployment.yaml]\n",
			Passes: "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n",
		},
	}
}
