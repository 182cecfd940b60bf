package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/skerry-dev/skerry/internal/cli/hubclient"
)

// newTree returns the whole command line and what it prints.
func newTree() (root *cobra.Command, out, errOut *bytes.Buffer) {
	streams, _, out, errOut := genericiooptions.NewTestIOStreams()
	return New("1.2.3", streams, Starters{}), out, errOut
}

// walk calls fn with every command that help shows.
func walk(c *cobra.Command, fn func(*cobra.Command)) {
	fn(c)
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			walk(sub, fn)
		}
	}
}

func TestEveryCommandIsExplained(t *testing.T) {
	root, _, _ := newTree()
	n := 0
	walk(root, func(c *cobra.Command) {
		n++
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: its short text is %q, want a phrase without a full stop", path, c.Short)
		}
		if strings.TrimSpace(c.Example) == "" {
			t.Errorf("%s has no example", path)
		}
		if strings.Contains(c.Example, "kubectl ") || strings.Contains(c.Long, "kubectl ") {
			t.Errorf("%s speaks of kubectl", path)
		}
		if c.Runnable() == c.HasSubCommands() && c.Name() != "apply" && c.Name() != "skerry" && c.RunE == nil {
			t.Errorf("%s is neither a verb nor a noun", path)
		}
	})
	if n < 20 {
		t.Errorf("only %d commands were found", n)
	}
}

func TestHelpOfEveryCommand(t *testing.T) {
	root, _, _ := newTree()
	var paths [][]string
	walk(root, func(c *cobra.Command) { paths = append(paths, strings.Fields(c.CommandPath())[1:]) })
	for _, path := range paths {
		root, out, errOut := newTree()
		root.SetArgs(append(path, "--help"))
		if code := Main(t.Context(), root, errOut); code != ExitOK {
			t.Errorf("skerry %s --help: code %d, %s", strings.Join(path, " "), code, errOut)
		}
		if !strings.Contains(out.String(), "Usage:") || strings.Contains(out.String(), "\x1b[") {
			t.Errorf("skerry %s --help prints:\n%s", strings.Join(path, " "), out)
		}
	}
}

// TestFlagsAgree holds a flag to mean the same at every command of ours.
func TestFlagsAgree(t *testing.T) {
	root, _, _ := newTree()
	meaning := map[string]string{"n": "namespace", "o": "output", "f": "follow", "w": "watch", "l": "selector"}
	for _, c := range root.Commands() {
		if c.GroupID == groupObjects || c.Name() == "completion" {
			continue // kubectl's own
		}
		walk(c, func(c *cobra.Command) {
			for short, long := range meaning {
				if f := c.Flags().ShorthandLookup(short); f != nil && f.Name != long {
					t.Errorf("%s: -%s means --%s, elsewhere --%s", c.CommandPath(), short, f.Name, long)
				}
			}
		})
	}
}

func TestMainSaysWhatWentWrong(t *testing.T) {
	tests := []struct {
		err    error
		code   int
		want   string
		reason string
	}{
		{nil, ExitOK, "", "nothing to say"},
		{errors.New("disk is full\n"), ExitFailure, "Error: disk is full\n", "one sentence"},
		{Hint(errors.New("disk is full"), "remove %d files", 3), ExitFailure, "Error: disk is full\nHint: remove 3 files\n", "and a hint"},
		{Usage(errors.New("no such flag")), ExitUsage, "Error: no such flag\n", "the person's own mistake has a code of its own"},
		{fmt.Errorf("status: %w", Hint(Usage(errors.New("no such flag")), "look")), ExitUsage, "Error: status: no such flag\nHint: look\n", "also below other errors"},
		{fmt.Errorf("ask: %w", hubclient.ErrNoHub), ExitFailure,
			"Error: ask: no hub\nHint: is KUBECONFIG set as `skerry up` printed it, and does the hub run?\n", "what to do without a hub"},
	}
	for _, tt := range tests {
		root, _, _ := newTree()
		root.AddCommand(&cobra.Command{Use: "try", RunE: func(*cobra.Command, []string) error { return tt.err }})
		root.SetArgs([]string{"try"})
		var errOut bytes.Buffer
		if code := Main(t.Context(), root, &errOut); code != tt.code || errOut.String() != tt.want {
			t.Errorf("%v: code %d, %q: %s", tt.err, code, errOut.String(), tt.reason)
		}
	}
	if Hint(nil, "x") != nil || Usage(nil) != nil {
		t.Error("no error became one")
	}
}

func TestLabels(t *testing.T) {
	got, err := labelsOf([]string{"kind=shop", "note=a=b", "empty="})
	if err != nil || len(got) != 3 || got["kind"] != "shop" || got["note"] != "a=b" || got["empty"] != "" {
		t.Errorf("labels are %v, %v", got, err)
	}
	for _, bad := range []string{"kind", "=shop", ""} {
		var usage usageError
		if _, err := labelsOf([]string{bad}); !errors.As(err, &usage) {
			t.Errorf("--label %q was answered with %v", bad, err)
		}
	}
}

// testGlobals are what a command is given, with the flags of no command line.
func testGlobals() *globals {
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	return &globals{flags: genericclioptions.NewConfigFlags(true), streams: streams}
}
