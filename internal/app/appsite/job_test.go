package appsite_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// printed collects what a job prints.
type printed struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *printed) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(data)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// jobKey is one that no app has, as package task makes them.
var jobKey = fleet.AppKey{Namespace: "default", Name: "clean-697a25cd0b6f0cd6c644f4f65b5604329ea4e1e4e90ab23ca788d5"}

// job is the program of a job: what it is told, and what it does by its first argument.
const job = `#!/bin/sh
echo "$1 as $SKERRY_TASK of $SKERRY_APP at $SKERRY_SITE with $A, port ${PORT:-none}"
case "$1" in
fail) echo broken >&2; exit 3;;
hang) sleep 60;;
leave) echo kept > "$SKERRY_DATA_STORE/file";;
read) cat "$SKERRY_DATA_STORE/file" "$SKERRY_CONFIG_DIR/app.conf";;
esac
`

func (b *box) pushJob() app.Placement {
	p := b.push("1.0.0", func(bd *bundle) {
		bd.files = map[string]string{"bin/app": job, "bin/other": "#!/bin/sh\necho other \"$@\"\n"}
		bd.config.Process.Data = []string{"store"}
		bd.config.Process.Env = map[string]string{"A": "bundle"}
	})
	p.App, p.Route, p.Config = jobKey, nil, &app.Config{Files: map[string]string{"app.conf": "port 1\n"}}
	return sealed(b.t, p)
}

func (b *box) runJob(ctx context.Context, edit func(*appsite.Job)) (appsite.Outcome, string, error) {
	var out printed
	j := appsite.Job{Key: jobKey, ID: "task.u.run.1", Run: appsite.Run{Name: "clean"}, Output: &out}
	edit(&j)
	outcome, err := b.module.RunJob(ctx, j, func() error { return nil })
	return outcome, out.String(), err
}

func args(args ...string) func(*appsite.Job) { return func(j *appsite.Job) { j.Run.Args = args } }

func TestJobOfABundle(t *testing.T) {
	testenv.Require(t, testenv.Tool("sh"))
	b := newBox(t)
	b.bootReal(appsite.Options{})
	defer func() { b.haltReal() }()
	if _, _, err := b.runJob(t.Context(), args("x")); !errors.Is(err, appsite.ErrNotYet) {
		t.Fatalf("a job whose bundle was not prepared: %v", err)
	}
	p := b.pushJob()
	b.apply() // the facts of the site
	if err := b.module.Prepare(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		reason string
		edit   func(*appsite.Job)
		want   appsite.Outcome
		prints string
	}{
		"succeeds": {"the bundle's own program", args("x"), appsite.Outcome{}, "x as clean of " + jobKey.Name + " at shop-1 with bundle, port none\n"},
		"fails":    {"its exit code is told", args("fail"), appsite.Outcome{ExitCode: 3, Reason: "exited with status 3"}, "broken\n"},
		"command": {"another program of the bundle", func(j *appsite.Job) {
			j.Run.Command, j.Run.Args = []string{"bin/other", "a"}, []string{"b c"}
		}, appsite.Outcome{}, "other a b c\n"},
		"env": {"the task's environment wins", func(j *appsite.Job) {
			j.Run.Args, j.Env = []string{"x"}, map[string]string{"A": "task"}
		}, appsite.Outcome{}, "with task,"},
	} {
		t.Run(name, func(t *testing.T) {
			outcome, out, err := b.runJob(t.Context(), row.edit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, outcome); diff != "" || !strings.Contains(out, row.prints) {
				t.Errorf("%s (-want +got):\n%s\nit printed:\n%s", row.reason, diff, out)
			}
		})
	}
	t.Run("data and configuration", func(t *testing.T) {
		if outcome, out, err := b.runJob(t.Context(), args("leave")); err != nil || outcome.Reason != "" {
			t.Fatalf("%+v, %v\n%s", outcome, err, out)
		}
		if _, out, err := b.runJob(t.Context(), args("read")); err != nil || !strings.Contains(out, "kept\nport 1\n") {
			t.Errorf("the next run reads %v:\n%s", err, out)
		}
	})
	t.Run("no such program", func(t *testing.T) {
		_, err := b.module.RunJob(t.Context(), appsite.Job{Key: jobKey, ID: "task.u.run.2", Run: appsite.Run{Command: []string{"bin/nope"}}, Output: &printed{}},
			func() error { return nil })
		if err == nil || errors.Is(err, appsite.ErrNotYet) || !strings.Contains(err.Error(), "bin/nope") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("ended", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begun := time.Now()
		outcome, _, err := b.runJob(ctx, args("hang"))
		if err != nil || outcome.ExitCode != -1 || outcome.Reason != "stopped" {
			t.Errorf("outcome %+v, %v", outcome, err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	t.Run("nothing is left of a run", func(t *testing.T) {
		for _, dir := range []string{"scratch", "config"} {
			left, err := os.ReadDir(filepath.Join(b.dir, "apps", dir))
			if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
				t.Errorf("%s holds %v, %v", dir, left, err)
			}
		}
	})
	t.Run("what was prepared outlives the agent, with no network", func(t *testing.T) {
		b.content.online(false)
		b.haltReal()
		b.bootReal(appsite.Options{})
		if _, out, err := b.runJob(t.Context(), args("x")); err != nil || !strings.HasPrefix(out, "x as clean") {
			t.Errorf("%v\n%s", err, out)
		}
		if err := b.module.Prepare(t.Context(), p); err != nil {
			t.Errorf("preparing the same again: %v", err)
		}
	})
	t.Run("forgotten", func(t *testing.T) {
		if err := b.module.Forget(jobKey); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"unpacked", "data"} {
			if left, _ := os.ReadDir(filepath.Join(b.dir, "apps", dir)); len(left) > 0 {
				t.Errorf("%s holds %v", dir, left)
			}
		}
		if _, _, err := b.runJob(t.Context(), args("x")); !errors.Is(err, appsite.ErrNotYet) {
			t.Errorf("after it was forgotten: %v", err)
		}
	})
}

// TestJobOfAnApp runs beside the app, in its release, its data and its secrets.
func TestJobOfAnApp(t *testing.T) {
	testenv.Require(t, testenv.Tool("sh"))
	b := newBox(t)
	secrets := &sent{values: map[string]map[string]fleet.SecretValue{}}
	secrets.put("default/db", password("hunter2"))
	b.bootReal(appsite.Options{Secrets: secrets})
	defer func() { b.haltReal() }()
	inApp := func(j *appsite.Job) {
		j.App = helloKey
		j.Run.Command = []string{"bin/look"}
	}
	if _, _, err := b.runJob(t.Context(), inApp); !errors.Is(err, appsite.ErrNoApp) || !errors.Is(err, appsite.ErrNotYet) {
		t.Fatalf("a job of an app that is not here: %v", err)
	}
	p := b.pushReal("1.0.0", "serve", func(bd *bundle) {
		bd.files["bin/look"] = "#!/bin/sh\necho \"$SKERRY_RELEASE $PASSWORD\"\n"
	})
	p.Secrets = []app.SecretRef{{Name: "db", Env: []app.SecretEnv{{Name: "PASSWORD", Key: "password"}}}}
	p = sealed(t, p)
	b.apply(p)
	b.awaitHealthy(p)
	outcome, out, err := b.runJob(t.Context(), inApp)
	if err != nil || outcome.Reason != "" || out != "hello-1.0.0 hunter2\n" {
		t.Errorf("outcome %+v, %v\n%s", outcome, err, out)
	}
	if !b.report().Healthy() {
		t.Errorf("the app itself: %+v", b.report())
	}
	refused := errors.New("the disk is full")
	_, err = b.module.RunJob(t.Context(), appsite.Job{Key: jobKey, App: helloKey, ID: "task.u.run.9", Run: appsite.Run{Command: []string{"bin/look"}}, Output: &printed{}},
		func() error { return refused })
	if !errors.Is(err, refused) {
		t.Errorf("a run whose beginning is not on record: %v", err)
	}
}
