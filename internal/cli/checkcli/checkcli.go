// Package checkcli is the verb "check" of the command line: what is wrong with manifests, before they meet a cluster.
//
// Package cli imports it, and cmd for the page of rules. It needs no hub and no network. Its errors are of usage, marked
// by Env.Usage, where flags or input cannot be used; ErrFindings says that something was found.
package checkcli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
	"github.com/skerry-dev/skerry/internal/upgrade/check/kubeapi"
	"github.com/skerry-dev/skerry/internal/upgrade/check/manifest"
	"github.com/skerry-dev/skerry/internal/upgrade/check/podsecurity"
	"github.com/skerry-dev/skerry/internal/upgrade/check/report"
)

// Env is what the verb needs of the command line around it.
type Env struct {
	In      io.Reader
	Out     io.Writer
	Version string // of skerry
	// Usage marks an error as one of the person's own command line.
	Usage func(error) error
}

// ErrFindings is returned when something was found at or above --fail-on.
var ErrFindings = errors.New("the check found something")

// errUnusable is returned, marked as of usage, when a part of the input was not read.
var errUnusable = errors.New("not all of the input could be read")

const never = "never"

type options struct {
	kubernetes, level, output, failOn string
	levelSet                          bool
}

// New returns the verb.
func New(env Env) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "check PATH...",
		Short: "Check manifests before an upgrade",
		Long: "Check manifests: does Kubernetes in its next version still serve their APIs, and do their pods keep to\n" +
			"the Pod Security Standards? PATH is a file, a folder with all below it, or - for standard input.\n" +
			"Lists and manifests within ConfigMaps are looked into. No hub, no cluster and no network is needed.\n\n" +
			"Which API is served when comes from Kubernetes' own data, opt-in APIs included. Of minors that were\n" +
			"not released when this skerry was made only announced removals are known, and it says so.\n\n" +
			"It ends with 0 if nothing was found at or above --fail-on, with 1 if something was, and with 2 if a\n" +
			"flag cannot be used or a part of the input cannot be read.",
		Example: "  skerry check deploy/\n  skerry check --kubernetes 1.36 --pod-security restricted deploy/\n" +
			"  helm template web ./chart | skerry check -\n  skerry check deploy/ -o sarif > check.sarif",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.levelSet = cmd.Flags().Changed("pod-security")
			return run(env, o, args)
		},
	}
	c.Flags().StringVar(&o.kubernetes, "kubernetes", "", "minor version to check for, such as 1.36 (default: the newest known)")
	c.Flags().StringVar(&o.level, "pod-security", "baseline", "level of the Pod Security Standards: restricted, baseline or privileged; named, violations are errors, else warnings")
	c.Flags().StringVar(&o.failOn, "fail-on", check.Failure.String(), "severity from which findings make the command fail: error, warning, info or never")
	c.Flags().StringVarP(&o.output, "output", "o", "table", "table, json, sarif (code scanning), github (annotations of a pull request), markdown, or junit")
	return c
}

func run(env Env, o options, paths []string) error {
	fails, err := failing(o.failOn)
	if err != nil {
		return env.Usage(fmt.Errorf("--fail-on %w", err))
	}
	if err := report.Known(o.output); err != nil {
		return env.Usage(fmt.Errorf("--output %w", err))
	}
	table, err := kubeapi.Load()
	if err != nil {
		return err
	}
	target := table.Newest()
	if o.kubernetes != "" {
		if target, err = table.Target(o.kubernetes); err != nil {
			return env.Usage(fmt.Errorf("--kubernetes %w", err))
		}
	}
	severity := check.Warning
	if o.levelSet {
		severity = check.Failure
	}
	pods, err := podsecurity.New(o.level, target.Minor, severity)
	if err != nil {
		return env.Usage(fmt.Errorf("--pod-security %w", err))
	}
	checkers := []check.Checker{kubeapi.New(table, target), pods}

	in := manifest.Read(paths, env.In, manifest.DefaultLimits())
	findings := append(check.Run(in.Objects, checkers...), in.Findings...)
	check.Sort(findings)
	r := report.Report{
		Version: env.Version, Kubernetes: target.String(), Partial: target.Partial, PodSecurity: o.level,
		Files: in.Files, Objects: len(in.Objects), Findings: findings, Rules: rulesOf(checkers), Fails: fails,
	}
	if err := report.Write(env.Out, o.output, r); err != nil {
		return err
	}
	return verdict(env, in, findings, fails, o.failOn)
}

// verdict turns what was found into the error that decides the exit status.
func verdict(env Env, in *manifest.Input, findings []check.Finding, fails func(check.Finding) bool, failOn string) error {
	if in.Unusable() {
		return env.Usage(errUnusable)
	}
	n := 0
	for _, f := range findings {
		if fails(f) {
			n++
		}
	}
	if n > 0 {
		return fmt.Errorf("%w: %d of severity %s or worse", ErrFindings, n, failOn)
	}
	return nil
}

// failing returns what makes the command fail.
func failing(on string) (func(check.Finding) bool, error) {
	if on == never {
		return func(check.Finding) bool { return false }, nil
	}
	least, err := check.ParseSeverity(on)
	if err != nil {
		return nil, fmt.Errorf("%q: want error, warning, info or never", on)
	}
	return func(f check.Finding) bool { return f.Severity >= least }, nil
}

func rulesOf(checkers []check.Checker) []check.Rule {
	out := manifest.Rules()
	for _, c := range checkers {
		out = append(out, c.Rules()...)
	}
	return out
}

// Rules returns every rule that the verb knows, for its page.
func Rules() ([]check.Rule, error) {
	table, err := kubeapi.Load()
	if err != nil {
		return nil, err
	}
	pods, err := podsecurity.New("restricted", table.Newest().Minor, check.Failure)
	if err != nil {
		return nil, err
	}
	return rulesOf([]check.Checker{kubeapi.New(table, table.Newest()), pods}), nil
}
