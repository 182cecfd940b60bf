package eventcli

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/event"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func lines(t *testing.T, entries ...event.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, e := range entries {
		if err := json.NewEncoder(&b).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestTable(t *testing.T) {
	print, err := printer("table", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	in := lines(t,
		event.Entry{Site: "shop-1", Event: fleet.Event{Class: fleet.ClassAlarm, Reason: "AppFailed", Message: "two\nlines\x1b[31m", App: fleet.AppKey{Namespace: "shop", Name: "till"}, Time: 1000}},
		event.Entry{Site: "shop-1", Event: fleet.Event{Class: fleet.ClassSample, Reason: "Traffic", Data: json.RawMessage(`{"requests":3}`), Time: 2000}},
		event.Entry{Site: "shop-2", Lost: 2, Event: fleet.Event{Class: fleet.ClassEvent, Reason: event.ReasonLost, Message: "2 events are missing here"}},
	)
	if err := show(bytes.NewReader(in), &out, print); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"TIME SITE CLASS REASON APP MESSAGE",
		"1970-01-01 00:00:01 shop-1 alarm AppFailed shop/till two lines [31m",
		`1970-01-01 00:00:02 shop-1 sample Traffic - {"requests":3}`,
		"- shop-2 event EventsLost - 2 events are missing here",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFollowed prints what is there while the answer goes on.
func TestFollowed(t *testing.T) {
	print, err := printer("json", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	printed := make(chan string)
	done := make(chan error, 1)
	go func() { done <- show(r, writerFunc(func(p []byte) { printed <- string(p) }), print) }()
	entry := event.Entry{Site: "shop-1", Event: fleet.Event{Class: fleet.ClassEvent, Reason: "LinkUp"}}
	for range 3 {
		if _, err := w.Write(lines(t, entry)); err != nil {
			t.Fatal(err)
		}
		if got := <-printed; got != string(lines(t, entry)) {
			t.Errorf("printed %q", got)
		}
	}
	_ = w.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-done; err == nil {
		t.Error("an answer that breaks off is an error")
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestBadFlags(t *testing.T) {
	none := ""
	env := Env{Namespace: &none, DefaultNamespace: func() (string, error) { return "shop", nil }}
	for _, row := range []struct {
		reason string
		o      options
	}{
		{"a class that there is not", options{classes: []string{"alert"}}},
		{"more than the hub gives", options{limit: event.MaxLimit + 1}},
		{"less than nothing", options{limit: -1}},
	} {
		if _, err := row.o.query(env); err == nil {
			t.Errorf("%s is taken", row.reason)
		}
	}
	q, err := options{app: "app/till", site: "site/shop-1", classes: []string{"alarm", "sample"}, limit: 5}.query(env)
	if want := "app=till&class=alarm&class=sample&follow=false&limit=5&namespace=shop&site=shop-1"; err != nil || q.Encode() != want {
		t.Errorf("asks for %s, %v; want %s", q.Encode(), err, want)
	}
	if _, err := printer("xml", time.UTC); err == nil {
		t.Error("an output that there is not is taken")
	}
}
