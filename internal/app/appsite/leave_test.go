package appsite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

func TestAppLeavesAndKeepsDataAsDeclared(t *testing.T) {
	for name, removeData := range map[string]bool{"data stays": false, "data goes": true} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(t *testing.T, b *box, rt *scripted) {
				p := b.push("1", func(bd *bundle) { bd.config.Process.Data = []string{"photos"} })
				p.RemoveData = removeData
				b.apply(sealed(t, p))
				synctest.Wait()
				data := rt.newest().spec.DataDirs["photos"]
				if err := os.WriteFile(filepath.Join(data, "one.jpg"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				rt.newest().spec.Stdout.Write([]byte("hello\n"))
				b.apply()
				synctest.Wait()
				if r := b.module.Report().(app.Report); len(r.Apps) != 0 {
					t.Errorf("report still names %+v", r.Apps)
				}
				if got := b.router.last().Release; got != "removed" {
					t.Errorf("the gateway still has %q", got)
				}
				if diff := cmp.Diff([]string{"start hello-1", "stop hello-1"}, rt.story()); diff != "" {
					t.Error(diff)
				}
				if _, err := os.Stat(data); (err != nil) != removeData {
					t.Errorf("data directory: %v", err)
				}
				for _, dir := range []string{"apps/unpacked", "apps/scratch", "apps/logs", "content"} {
					if left := b.entries(dir); len(left) != 0 {
						t.Errorf("%s still holds %v", dir, left)
					}
				}
			})
		})
	}
}

func TestAppThatLeftWhileTheAgentWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		rt := &scripted{}
		b.bootScripted(rt)
		p := b.push("1", func(bd *bundle) { bd.config.Process.Data = []string{"photos"} })
		p.RemoveData = true
		b.apply(sealed(t, p))
		synctest.Wait()
		b.halt()
		b.bootScripted(rt)
		if err := b.module.Apply(t.Context(), nil, fleet.Facts{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if left := b.entries("apps/data"); len(left) != 0 {
			t.Errorf("data %v stays", left)
		}
		b.halt()
		rt.story()
		b.bootScripted(rt)
		synctest.Wait()
		if story := rt.story(); len(story) != 0 {
			t.Errorf("an app that left came back: %v", story)
		}
		b.halt()
	})
}

func TestAppComesBackWhileItLeaves(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		one := b.push("1", nil)
		b.apply(one)
		synctest.Wait()
		b.apply()
		b.apply(one)
		time.Sleep(time.Minute)
		b.expect("it runs", app.AppReport{App: helloKey, Desired: ref(one), Running: ref(one), Phase: fleet.PhaseRunning})
	})
}

func TestWipeLeavesNothing(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		b.apply(b.push("1", func(bd *bundle) { bd.config.Process.Data = []string{"photos"} }))
		synctest.Wait()
		if err := b.module.Wipe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := append(b.entries("apps"), b.entries("content")...); len(left) != 0 {
			t.Errorf("%v is left", left)
		}
		bucket, err := b.store.Bucket("apps")
		if err != nil {
			t.Fatal(err)
		}
		if keys, err := bucket.Keys(); err != nil || len(keys) != 0 {
			t.Errorf("records %v are left (%v)", keys, err)
		}
		if diff := cmp.Diff([]string{"start hello-1", "stop hello-1"}, rt.story()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBadSectionIsRefusedWhole(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		one := b.push("1", nil)
		b.apply(one)
		synctest.Wait()
		err := b.module.Apply(t.Context(), []byte(`{"apps":[{"app":"default/hello"}]}`), fleet.Facts{})
		if err == nil || !strings.Contains(err.Error(), wire.ErrMessage.Error()) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		b.expect("the last good section stays", app.AppReport{App: helloKey, Desired: ref(one), Running: ref(one), Phase: fleet.PhaseRunning})
	})
}

func TestEnvironment(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		p := b.push("1", func(bd *bundle) { bd.config.Process.Env = map[string]string{"A": "bundle", "B": "bundle"} })
		p.Env = map[string]string{"B": "placement", "C": "placement"}
		b.apply(sealed(t, p))
		synctest.Wait()
		hub := filepath.Join(b.dir, "apps", "hub", "state")
		want := map[string]string{
			"A": "bundle", "B": "placement", "C": "placement",
			"SKERRY_SITE": "shop-1", "SKERRY_ZONE": "north", "SKERRY_RELEASE": "hello-1", "SKERRY_VERSION": "1",
			"SKERRY_LABEL_KIND": "shop", "SKERRY_LABEL_EXAMPLE_COM_FLOOR_2": "yes", "SKERRY_HUB_FILE": hub,
		}
		if diff := cmp.Diff(want, rt.newest().spec.Env); diff != "" {
			t.Error(diff)
		}
		for _, link := range []fleet.Link{fleet.LinkUnknown, fleet.LinkConnected, fleet.LinkAway} {
			want := "away\n"
			if link == fleet.LinkConnected {
				want = "connected\n"
			}
			b.module.LinkChanged(link)
			if data, err := os.ReadFile(hub); err != nil || string(data) != want {
				t.Errorf("link %s: file says %q (%v)", link, data, err)
			}
		}
		if info, err := os.Stat(hub); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("apps cannot read the file: %v %v", info, err)
		}
	})
}

func TestMetricsOfApps(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		b.apply(b.push("1", nil))
		synctest.Wait()
		b.apply(b.push("2", nil))
		synctest.Wait()
		families, err := b.metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			m := f.Metric[0]
			got[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		want := map[string]float64{"skerry_app_phase": 1, "skerry_app_restarts_total": 0, "skerry_app_switch_overs_total": 1, "skerry_app_log_lines_lost_total": 0}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}
