package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// row is one line of the table.
type row struct {
	name, aim string
	of        func(*step) string
}

func short(v float64, unit string) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f%s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f%s", v, unit)
	}
	return fmt.Sprintf("%.2f%s", v, unit)
}

func of[T any](part func(*step) *T, show func(*step, *T) string) func(*step) string {
	return func(s *step) string {
		if p := part(s); p != nil {
			return show(s, p)
		}
		return ""
	}
}

func grown(show func(*step, *growth) string) func(*step) string {
	return of(func(s *step) *growth { return s.Growth }, show)
}

func idling(show func(*step, *idleness) string) func(*step) string {
	return of(func(s *step) *idleness { return s.Idle }, show)
}

func released(show func(*step, *spread) string) func(*step) string {
	return of(func(s *step) *spread { return s.Release }, show)
}

func restarted(show func(*step, *spread) string) func(*step) string {
	return of(func(s *step) *spread { return s.Restart }, show)
}

func threeOf(_ *step, r *spread) string {
	return fmt.Sprintf("%s, %s, %s", short(r.P50, ""), short(r.P99, ""), short(r.Max, " s"))
}

func rows() []row {
	return []row{
		{"sites added", "", grown(func(_ *step, g *growth) string { return fmt.Sprint(g.Added) })},
		{"make these and their tokens, while they join", "", grown(func(_ *step, g *growth) string { return short(g.Import, " s") })},
		{"until all of them joined, are linked, and report the app", "", grown(func(_ *step, g *growth) string { return short(g.Join, " s") })},
		{"API writes a site that is added", "", grown(func(_ *step, g *growth) string { return short(g.WritesPerSite, "") })},
		{"hub: resident memory", "15,000 sites in 1.0 GB (954 MiB)", idling(func(_ *step, i *idleness) string { return short(i.Resident, " MiB") })},
		{"hub: anonymous memory", "", idling(func(_ *step, i *idleness) string { return short(i.Anonymous, " MiB") })},
		{"hub: resident memory a site", "", idling(func(s *step, i *idleness) string { return short(i.Resident*1024/float64(s.Sites), " KiB") })},
		{"hub: of it Go's heap; stacks", "", idling(func(_ *step, i *idleness) string { return short(i.Heap, "; ") + short(i.Stacks, " MiB") })},
		{"idle: hub's CPU, of one core", "", idling(func(_ *step, i *idleness) string { return short(i.CPU, " %") })},
		{"idle: API writes a second", "none but leases", idling(func(_ *step, i *idleness) string { return short(i.WritesPerSecond, "") })},
		{"idle: bytes a site and hour, with packet headers", "", idling(func(_ *step, i *idleness) string { return short(i.WireBytes/1000, " kB") })},
		{"idle: bytes a site and hour, of TCP's streams", "", idling(func(_ *step, i *idleness) string { return short(i.StreamBytes/1000, " kB") })},
		{"release reported: p50, p99, last site", "last within 15 s", released(threeOf)},
		{"release: API writes", "fewer than 100", released(func(_ *step, r *spread) string { return fmt.Sprint(r.WritesSettled.total()) })},
		{"release: hub's CPU", "", released(func(_ *step, r *spread) string { return short(r.CPU, " s") })},
		{"hub killed: it serves again", "", restarted(func(_ *step, r *spread) string { return short(r.Ready, " s") })},
		{"hub killed: sites in sync: p50, p99, last site", "last within 60 s", restarted(threeOf)},
		{"hub killed: the hub calls every site connected", "", restarted(func(_ *step, r *spread) string { return short(r.Known, " s") })},
		{"hub killed: resident memory of the new one then", "as above", restarted(func(_ *step, r *spread) string { return short(r.Resident, " MiB") })},
		{"hub killed: API writes", "fewer than 100", restarted(func(_ *step, r *spread) string { return fmt.Sprint(r.WritesSettled.total()) })},
		{"hub killed: hub's CPU until all are in sync", "", restarted(func(_ *step, r *spread) string { return short(r.CPU, " s") })},
	}
}

// table is the table of the page.
func table(r *result) string {
	var b strings.Builder
	b.WriteString("| figure | aim |")
	for _, s := range r.Steps {
		if s.WebSocket > 0 {
			fmt.Fprintf(&b, " %d + %d by WebSocket |", s.Sites-s.WebSocket, s.WebSocket)
		} else {
			fmt.Fprintf(&b, " %d sites |", s.Sites)
		}
	}
	b.WriteString("\n| --- | --- |" + strings.Repeat(" ---: |", len(r.Steps)) + "\n")
	for _, row := range rows() {
		fmt.Fprintf(&b, "| %s | %s |", row.name, row.aim)
		for _, s := range r.Steps {
			fmt.Fprintf(&b, " %s |", row.of(s))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// page is the whole page.
func page(r *result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Scale: how many sites one hub holds\n\nMade by `make bench-scale SITES=n` on %s, %s, on which the sites run too (client processes: %d). One run; orders of size, not promises.\n"+
		"What follows for larger fleets stands in [scale](../scale.md).\n\n", r.Machine, r.Go, r.Clients)
	if r.Failed != "" {
		fmt.Fprintf(&b, "**This run did not reach its end**: %s\n\n", strings.ReplaceAll(r.Failed, "\n", " "))
	}
	b.WriteString(table(r))
	b.WriteString("\n![the same over the number of sites](scale.svg)\n\n## What is written to the Kubernetes API\n\n| step | at | until the last site | until nothing is written any more |\n| --- | --- | --- | --- |\n")
	for _, s := range r.Steps {
		if s.Growth != nil {
			fmt.Fprintf(&b, "| %d sites | joining | | %s |\n", s.Sites, s.Growth.Writes)
		}
		if s.Idle != nil {
			fmt.Fprintf(&b, "| %d sites | idle, %.0f s | %s | |\n", s.Sites, s.Idle.Seconds, orNothing(s.Idle.Writes))
		}
		if s.Release != nil {
			fmt.Fprintf(&b, "| %d sites | release | %s | %s |\n", s.Sites, orNothing(s.Release.Writes), orNothing(s.Release.WritesSettled))
		}
		if s.Restart != nil {
			fmt.Fprintf(&b, "| %d sites | restart | %s | %s |\n", s.Sites, orNothing(s.Restart.Writes), orNothing(s.Restart.WritesSettled))
		}
	}
	b.WriteString("\n## The kinds of sites\n\nSeconds, p50 and p99, of a release and of a restart.\n\n| step | kind | release | restart |\n| --- | --- | --- | --- |\n")
	for _, s := range r.Steps {
		for _, k := range []kind{light, full, webSocket} {
			if s.Release == nil || s.Release.Kinds[k] == [2]float64{} {
				continue
			}
			again := ""
			if s.Restart != nil {
				again = fmt.Sprintf("%.1f, %.1f", s.Restart.Kinds[k][0], s.Restart.Kinds[k][1])
			}
			fmt.Fprintf(&b, "| %d sites | %s | %.1f, %.1f | %s |\n", s.Sites, k, s.Release.Kinds[k][0], s.Release.Kinds[k][1], again)
		}
	}
	b.WriteString(extrapolated(r))
	fmt.Fprintf(&b, "\n"+how, r.Full, r.Asked)
	return b.String()
}

// extrapolateTo is the number of sites that is asked after and that no machine like this one holds.
const extrapolateTo = 100_000

// extrapolated says what a straight line through the steps gives for many more sites; empty without two steps.
func extrapolated(r *result) string {
	var b strings.Builder
	for _, f := range []struct {
		name, unit string
		of         func(*step) (float64, bool)
	}{
		{"hub: resident memory", "MiB", func(s *step) (float64, bool) {
			return value(s.Idle, func(i *idleness) float64 { return i.Resident })
		}},
		{"idle: hub's CPU, of one core", "%", func(s *step) (float64, bool) {
			return value(s.Idle, func(i *idleness) float64 { return i.CPU })
		}},
		{"release: last site", "s", func(s *step) (float64, bool) {
			return value(s.Release, func(r *spread) float64 { return r.Max })
		}},
		{"hub killed: last site in sync", "s", func(s *step) (float64, bool) {
			return value(s.Restart, func(r *spread) float64 { return r.Max })
		}},
	} {
		var x, y []float64
		for _, s := range r.Steps {
			if v, ok := f.of(s); ok && s.WebSocket == 0 {
				x, y = append(x, float64(s.Sites)), append(y, v)
			}
		}
		if base, slope, ok := fit(x, y); ok {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.name, short(base, " "+f.unit), short(slope*1000, " "+f.unit), short(base+slope*extrapolateTo, " "+f.unit))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("\n## Extrapolated\n\nA straight line through the steps above, by least squares; nothing of it was measured.\n\n"+
		"| figure | without sites | for each 1000 sites | for %d sites |\n| --- | ---: | ---: | ---: |\n", extrapolateTo) + b.String()
}

func value[T any](part *T, of func(*T) float64) (float64, bool) {
	if part == nil {
		return 0, false
	}
	return of(part), true
}

// fit is the line through points by least squares; false for fewer than two.
func fit(x, y []float64) (base, slope float64, ok bool) {
	var mx, my, xy, xx float64
	n := float64(len(x))
	for i := range x {
		mx, my = mx+x[i]/n, my+y[i]/n
	}
	for i := range x {
		xy, xx = xy+(x[i]-mx)*(y[i]-my), xx+(x[i]-mx)*(x[i]-mx)
	}
	if xx == 0 {
		return 0, 0, false
	}
	slope = xy / xx
	return my - slope*mx, slope, true
}

func orNothing(w writes) string {
	if len(w) == 0 {
		return "nothing"
	}
	return w.String()
}

// how says how the figures were made.
const how = `## How

- The hub is one ` + "`skerry hub run`" + ` with its embedded API, NATS and registry; its data lies on this machine's disk. The sites share its cores, so that every
  time holds the work of both sides.
- A site is the agent of package ` + "`internal/site`" + `: its sync, reports, signs of life, events and outbox, with a key and credentials from the hub's own enrolment, over
  TLS to NATS' own port; in the last column some more through the hub's one port. Light is what stands for apps: a module that says at once that it runs what
  it is told, no gateway, no content; and the store, which is a part of one file that many sites share and that is never synced. Its directory lies in memory.
  %d sites of kind "full" have a store of their own on the disk, synced as ever, for comparison.
- Making sites: ` + "`skerry site import`" + `, 1000 at a time, which join while the next are made. Joining: from the first of these commands until the last site is linked and its
  report of the app is acknowledged. The hub admits 200
  requests a second (docs/bus.md), and a site that joins makes two: that bound, not the hub's work, sets this time when it is near 100 sites a second. Sites come
  from many loopback addresses, since the hub takes 20 requests a second from one.
- Memory: VmRSS and RssAnon of the hub at the end of the idle time; a site's share is all of it divided by the sites, what a hub without sites takes included.
- API writes: what the API server counts itself (apiserver_request_total) of POST, PUT, PATCH, APPLY and DELETE, without leases and without those that only ask
  (reviews). Idle begins when nothing was written for 3 s.
- Release: from the start of ` + "`skerry apply`" + ` of a changed environment, with maxUnavailable 100 %%, until the acknowledgement of each site's report that it runs it.
- Restart: the hub is killed (SIGKILL) and started again at once. A site is in sync when, on a link that came up after that, its manifest was read and its report
  was acknowledged. API writes are counted from the new process' start until nothing is written any more, with %d sites at least
  31 s after it served: by then it says of every site whether it is there. Its own start is among them.
  Sites may be in sync before the hub serves people: the bus is there first. When the hub itself calls all of them connected stands beside it.
- Bytes: what the kernel counts of each connection (TCP_INFO), both ways; with headers means 52 bytes for each packet. The idle time follows soon after sites
  joined; what they still send of their events within 45 s of that is a part of it, so that it is more than an idle day would give.
`

// write writes page, figures and plot.
func write(dir string, r *result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"scale.json": string(data) + "\n", "scale.md": page(r), "scale.svg": plot(r)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
