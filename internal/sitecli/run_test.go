package sitecli

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/enroll"
)

func TestRunGatewayFlags(t *testing.T) {
	tests := []struct {
		reason string
		args   []string
		fails  string
		is     error
	}{
		{"nothing is said", nil, "", nil},
		{"two names", []string{"--gateway-name", "shop.example.com", "--gateway-name", "192.0.2.1"}, "", nil},
		{"a wildcard", []string{"--gateway-name", "*.example.com"}, "--gateway-name", enroll.ErrServingName},
		{"a list, which the flag does not take", []string{"--gateway-name", "a.example,b.example"}, "--gateway-name", enroll.ErrServingName},
		{"too many names", slices.Repeat([]string{"--gateway-name", "a.example"}, enroll.MaxServingNames+1), "--gateway-name", enroll.ErrServingName},
		{"files", []string{"--tls-cert", "a", "--tls-key", "b"}, "", nil},
		{"a certificate without its key", []string{"--tls-cert", "a"}, "--tls-key", nil},
		{"a key without its certificate", []string{"--tls-key", "b"}, "--tls-cert", nil},
		{"names that files would leave without effect", []string{"--gateway-name", "a.example", "--tls-cert", "a", "--tls-key", "b"}, "--gateway-name", nil},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			var ran []RunOptions
			c := newRun(Deps{
				Run:     func(_ context.Context, o RunOptions) error { ran = append(ran, o); return nil },
				DataDir: func(dir string) (string, error) { return dir, nil },
				Out:     io.Discard,
			})
			c.SilenceUsage, c.SilenceErrors = true, true
			c.SetArgs(tt.args)
			err := c.ExecuteContext(t.Context())
			if tt.fails == "" {
				if err != nil || len(ran) != 1 {
					t.Fatalf("ran %d times: %v", len(ran), err)
				}
				if want := strings.Count(strings.Join(tt.args, " "), "--gateway-name"); len(ran[0].GatewayNames) != want {
					t.Errorf("names are %q, want %d", ran[0].GatewayNames, want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.fails) || tt.is != nil && !errors.Is(err, tt.is) || len(ran) != 0 {
				t.Errorf("ran %d times: %v", len(ran), err)
			}
		})
	}
}
