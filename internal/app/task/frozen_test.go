package task_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
)

const digest = fleet.Digest("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

var (
	once  = task.Ref{Kind: task.KindTask, Namespace: "default", Name: "clean"}
	often = task.Ref{Kind: task.KindCronTask, Namespace: "default", Name: "backup"}
)

func ofBundle() task.Entry {
	return task.Entry{
		Ref: once, UID: "u-1", DeadlineSeconds: 60, Retries: 2, StartBy: 1700000000, Cancel: true, Done: true,
		Bundle: &app.Placement{
			App: once.Key(), Release: "clean-1", Version: "1.0.0", Digest: digest,
			Bundle: app.Bundle{Repository: "default/clean", Digest: digest, Size: 100}, Env: map[string]string{"A": "b"},
		},
		Command: []string{"bin/clean"}, Args: []string{"-v"},
	}
}

func ofApp() task.Entry {
	return task.Entry{
		Ref: often, UID: "u-2", App: "shop", Env: map[string]string{"A": "b"}, DeadlineSeconds: 60,
		Schedule: &task.Schedule{
			ScheduleRules: app.ScheduleRules{
				Cron: "0 3 * * *", Concurrency: app.ConcurrencyReplace, Missed: app.MissedRunOnce, StartingDeadlineSeconds: 600,
			},
			Suspend: true, History: 3,
		},
	}
}

// frozen are the messages of tasks with every field of theirs set; their encoding under testdata is that of
// protocol version 1 and never changes.
func frozen() map[string]any {
	run := task.Run{
		Time: 1700000000, Phase: task.PhaseFailed, Attempt: 2, ExitCode: 3, Message: "m", Started: 1700000001, Finished: 1700000002, Tail: "bye\n",
	}
	return map[string]any{
		"section.json": task.Section{
			Facts: fleet.Facts{Name: "shop-1", TimeZone: "Europe/Berlin"}, Tasks: []task.Entry{ofApp(), ofBundle()},
		},
		"report.json": task.Report{Tasks: []task.State{{
			Ref: often, UID: "u-2", Runs: []task.Run{run}, Next: 1700003600, Message: "m", Skipped: 1, Missed: 2, Digest: string(digest),
		}}},
		"output.json": task.OutputRequest{Ref: once, UID: "u-1", Run: 1},
	}
}

// elsewhere are fields that the tests of other packages freeze.
var elsewhere = map[string]bool{".Facts": true, ".Tasks.Bundle": true}

func TestFrozenMessages(t *testing.T) {
	for file, message := range frozen() {
		want, err := os.ReadFile("testdata/v1/" + file)
		if err != nil {
			t.Fatal(err)
		}
		want = bytes.TrimSpace(want)
		got, err := json.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: this message is written differently (-frozen +now):\n%s", file, diff)
		}
		read := reflect.New(reflect.TypeOf(message))
		if err := json.Unmarshal(want, read.Interface()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(message, read.Elem().Interface()); diff != "" {
			t.Errorf("%s: the frozen message is read differently (-want +got):\n%s", file, diff)
		}
		for _, field := range unset("", reflect.ValueOf(message)) {
			t.Errorf("%s%s is not frozen: write a file beside the old ones that holds it", file, field)
		}
	}
}

// unset lists the fields that no part of a message sets; of a list one item is enough.
func unset(at string, v reflect.Value) (out []string) {
	if elsewhere[at] {
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return unset(at, v.Elem())
		}
	case reflect.Slice:
		if v.Len() > 0 && v.Type().Elem().Kind() == reflect.Struct {
			in := map[string]int{}
			for i := range v.Len() {
				for _, field := range unset(at, v.Index(i)) {
					in[field]++
				}
			}
			for field, n := range in {
				if n == v.Len() {
					out = append(out, field)
				}
			}
			return out
		}
	case reflect.Struct:
		for i := range v.NumField() {
			out = append(out, unset(at+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
		return out
	}
	if v.IsZero() {
		return []string{at}
	}
	return nil
}

// TestKey freezes the names under which tasks have users and data at sites.
func TestKey(t *testing.T) {
	long := task.Ref{Kind: task.KindTask, Namespace: "default", Name: "a2345678901234567890123456789012345678901234567890-z"}
	for ref, want := range map[task.Ref]string{
		once:  "clean-697a25cd0b6f0cd6c644f4f65b5604329ea4e1e4e90ab23ca788d5",
		often: "backup-e76f2aaad194399c9b3ca253d403f9e475882526454d62ec1ebda",
		long:  "a2345678901234567890123456789012345678901234567890-z-ca4bef3",
	} {
		key := ref.Key()
		if err := key.Validate(); err != nil {
			t.Error(err)
		}
		if len(key.Name) <= 52 {
			t.Errorf("%s has the key %s, which an App could have", ref, key)
		}
		if key.Name != want {
			t.Errorf("key of %s is %s, want %s", ref, key.Name, want)
		}
	}
	if twin := (task.Ref{Kind: task.KindCronTask, Namespace: "default", Name: "clean"}); twin.Key() == once.Key() {
		t.Error("a Task and a CronTask of one name share their data")
	}
}
