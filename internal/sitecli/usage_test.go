package sitecli_test

import (
	"errors"
	"io"
	"testing"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/internal/sitecli"
)

func TestMarkUsage(t *testing.T) {
	tests := []struct {
		args   []string
		usage  bool
		reason string
	}{
		{[]string{"status", "--bogus"}, true, "an unknown flag"},
		{[]string{"status", "extra"}, true, "an argument too many"},
		{[]string{"logs"}, true, "an argument too few"},
		{[]string{"status"}, false, "no agent runs: that is no mistake of the line"},
	}
	for _, tt := range tests {
		root := &cobra.Command{Use: "skerry-site", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(sitecli.Commands(sitecli.Deps{
			DataDir: func(string) (string, error) { return t.TempDir(), nil }, Out: io.Discard,
		})...)
		sitecli.MarkUsage(root)
		root.SetArgs(tt.args)
		err := root.ExecuteContext(t.Context())
		var u sitecli.UsageError
		if err == nil || errors.As(err, &u) != tt.usage {
			t.Errorf("%v: %v, usage %v: %s", tt.args, err, !tt.usage, tt.reason)
		}
	}
}
