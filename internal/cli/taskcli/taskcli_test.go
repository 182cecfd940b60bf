package taskcli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
)

var errUsage = errors.New("usage")

func deps() (Deps, *bytes.Buffer) {
	streams, _, _, errOut := genericiooptions.NewTestIOStreams()
	return Deps{
		Streams: streams, Namespace: func() (string, error) { return "shop", nil },
		Usage: func(err error) error {
			if err == nil {
				return nil
			}
			return fmt.Errorf("%w: %w", errUsage, err)
		},
		Hint: func(err error, _ string, _ ...any) error { return err },
	}, errOut
}

func site(name fleet.SiteName, standing task.Standing, runs ...task.Run) task.SiteResult {
	return task.SiteResult{Site: name, Standing: standing, Runs: runs}
}

func TestTaskOfFlags(t *testing.T) {
	d, _ := deps()
	c := newRun(d)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.ParseFlags([]string{"clean-", "--app", "till", "--sites", "zone=eu,kind!=test", "--env", "A=b=c", "--command", "bin/x",
		"--deadline", "90s", "--retries", "2", "--parallelism", "3", "--ttl", "1h", "--", "-v", "a b"}))
	f := runFlags{app: "till", sites: "zone=eu,kind!=test", env: []string{"A=b=c"}, command: "bin/x", deadline: 90 * time.Second,
		retries: 2, atOnce: 3, ttl: time.Hour}
	got, err := f.task(d, []string{"clean-", "-v", "a b"})
	must(err)
	want := &v1alpha1.Task{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", GenerateName: "clean-"},
		Spec: v1alpha1.TaskSpec{
			Work: v1alpha1.TaskWork{
				App: "till", Command: []v1alpha1.TaskArg{"bin/x"}, Args: []v1alpha1.TaskArg{"-v", "a b"}, Env: map[string]v1alpha1.EnvValue{"A": "b=c"},
				Deadline: &metav1.Duration{Duration: 90 * time.Second}, Retries: 2,
			},
			Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{
				MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: "kind", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"test"}},
					{Key: "zone", Operator: metav1.LabelSelectorOpIn, Values: []string{"eu"}},
				},
			}},
			Parallelism: 3, TTLAfterFinished: &metav1.Duration{Duration: time.Hour},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("task (-want +got):\n%s", diff)
	}
	for name, f := range map[string]runFlags{
		"nothing to run": {all: true}, "two things": {app: "a", bundle: "b:1", all: true}, "nowhere": {app: "a"},
		"twice where": {app: "a", all: true, sites: "a=b"}, "no selector": {app: "a", sites: "a in"}, "no variable": {app: "a", all: true, env: []string{"A"}},
	} {
		if _, err := f.task(d, []string{"x"}); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSettledAndJudged(t *testing.T) {
	const ok, bad = task.Standing(task.PhaseSucceeded), task.Standing(task.PhaseFailed)
	for name, row := range map[string]struct {
		reason  string
		r       task.Results
		settled bool
		stalled bool
		fails   bool
	}{
		"begins":    {"nothing is known yet", task.Results{Sites: []task.SiteResult{}}, false, false, false},
		"runs":      {"one is at it", task.Results{Reason: "Progressing", Sites: []task.SiteResult{site("a", ok), site("b", "Running")}}, false, false, false},
		"done":      {"all are", task.Results{Finished: true, Sites: []task.SiteResult{site("a", ok)}}, true, false, false},
		"failed":    {"one is not well", task.Results{Finished: true, Stalled: true, Sites: []task.SiteResult{site("a", ok), site("b", bad)}}, true, false, true},
		"missed":    {"nor is one that missed it", task.Results{Finished: true, Sites: []task.SiteResult{site("a", "Missed")}}, true, false, true},
		"away":      {"those that are there are done", task.Results{Reason: "SitesAway", Sites: []task.SiteResult{site("a", ok), site("b", task.StandingAway)}}, true, false, false},
		"too early": {"the hub has not looked at it yet", task.Results{Sites: []task.SiteResult{site("b", task.StandingAway)}}, false, false, false},
		"nowhere":   {"it cannot run as it is", task.Results{Stalled: true, Reason: "NoSites"}, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := deps()
			settled, err := settled(d, task.Ref{Name: "x"}, row.r)
			if settled != row.settled || (err != nil) != row.stalled {
				t.Errorf("%s: settled %t, %v", row.reason, settled, err)
			}
			if err := judge(d, row.r); errors.Is(err, ErrSites) != row.fails {
				t.Errorf("%s: judged %v", row.reason, err)
			}
		})
	}
}

func TestPrintResults(t *testing.T) {
	now := time.Unix(1700000100, 0)
	var out bytes.Buffer
	r := task.Results{
		Ref: task.Ref{Kind: task.KindTask, Name: "clean"}, Message: "2 of 3 sites succeeded",
		Sites: []task.SiteResult{
			site("a", "Succeeded", task.Run{Phase: task.PhaseSucceeded, Attempt: 1, Started: 1700000000, Finished: 1700000002, Tail: "first\nlast \x1b[31mline\n"}),
			site("b", "Failed", task.Run{Phase: task.PhaseFailed, Attempt: 2, ExitCode: 3, Message: strings.Repeat("x", 100), Started: 1700000000, Finished: 1700000060}),
			{Site: "c", Standing: task.StandingAway},
		},
	}
	if err := printResults(&out, r, now); err != nil {
		t.Fatal(err)
	}
	want := "task/clean  under way: 2 of 3 sites succeeded\n\n" +
		"SITE   STATE       EXIT   TRIES   TOOK   FINISHED              OUTPUT\n" +
		"a      Succeeded   0      1       2s     2023-11-14 22:13:22   last  [31mline\n" +
		"b      Failed      3      2       60s    2023-11-14 22:14:20   " + strings.Repeat("x", 80) + "…\n" +
		"c      Away        -      -       -      -                     -\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	out.Reset()
	r = task.Results{Ref: task.Ref{Kind: task.KindCronTask, Name: "backup"}, Message: "m", Sites: []task.SiteResult{
		site("a", "Waiting", task.Run{Time: 1700000000, Phase: task.PhaseRunning, Attempt: 1, Started: 1700000000}, task.Run{Time: 1699990000, Phase: task.PhaseMissed, ExitCode: -1}),
		{Site: "b", Next: 1700003600},
	}}
	if err := printResults(&out, r, now); err != nil {
		t.Fatal(err)
	}
	want = "crontask/backup  schedule: m\n\n" +
		"SITE   TIME                  STATE     EXIT   TRIES   TOOK   FINISHED   OUTPUT\n" +
		"a      2023-11-14 22:13:20   Running   -      1       100s   -          -\n" +
		"       2023-11-14 19:26:40   Missed    -      -       -      -          -\n" +
		"b      2023-11-14 23:13:20   Pending   -      -       -      -          -\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table of a schedule (-want +got):\n%s", diff)
	}
}

func TestProgressInLines(t *testing.T) {
	var out bytes.Buffer
	p := &progress{out: &out, name: "x"}
	r := task.Results{Sites: []task.SiteResult{site("a", task.StandingWaiting), site("b", "Running")}}
	p.show(r)
	p.show(r)
	r.Sites[0].Standing = "Succeeded"
	p.show(r)
	p.end()
	if want := "task/x: 2 sites, 1 waiting, 1 running\ntask/x: 2 sites, 1 running, 1 succeeded\n"; out.String() != want {
		t.Errorf("progress %q", out.String())
	}
}
