package app_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

func TestDecodeLogsRequest(t *testing.T) {
	hello := fleet.AppKey{Namespace: "default", Name: "hello"}
	for name, row := range map[string]struct {
		reason, body string
		want         app.LogsRequest
		err          error
	}{
		"plain":   {"no number means no lines of the past", `{"app":"default/hello"}`, app.LogsRequest{App: hello}, nil},
		"all":     {"a negative number means all that is kept", `{"app":"default/hello","tail":-1,"follow":true}`, app.LogsRequest{App: hello, Tail: app.MaxTail, Follow: true}, nil},
		"many":    {"the number is bounded", `{"app":"default/hello","tail":1000000}`, app.LogsRequest{App: hello, Tail: app.MaxTail}, nil},
		"no app":  {"an app must be named", `{}`, app.LogsRequest{}, wire.ErrMessage},
		"bad app": {"a name must not be a path", `{"app":"a/../b"}`, app.LogsRequest{}, wire.ErrMessage},
		"no JSON": {"it is something else", `tail`, app.LogsRequest{}, wire.ErrMessage},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := app.DecodeLogsRequest([]byte(row.body))
			if !errors.Is(err, row.err) {
				t.Errorf("%s: got error %v", row.reason, err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("%s:\n%s", row.reason, diff)
			}
		})
	}
}
