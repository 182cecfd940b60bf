package main

import (
	"fmt"
	"math"
	"strings"
)

// line is one series of a panel; of returns NaN where nothing was measured.
type line struct {
	name, colour string
	of           func(*step) float64
}

// panel is one plot over the number of sites.
type panel struct {
	title, unit string
	aim         float64 // zero: none
	lines       []line
}

const (
	blue, orange, green = "#1f6fb2", "#c8640a", "#2e8540"
	panelWidth          = 380.0
	panelHeight         = 240.0
	left, right         = 60.0, 20.0
	top, bottom         = 34.0, 40.0
)

func panels() []panel {
	missing := math.NaN()
	idle := func(fn func(*step, *idleness) float64) func(*step) float64 {
		return func(s *step) float64 {
			if s.Idle == nil {
				return missing
			}
			return fn(s, s.Idle)
		}
	}
	times := func(part func(*step) *spread, fn func(*spread) float64) func(*step) float64 {
		return func(s *step) float64 {
			if p := part(s); p != nil {
				return fn(p)
			}
			return missing
		}
	}
	three := func(part func(*step) *spread) []line {
		return []line{
			{"p50", green, times(part, func(r *spread) float64 { return r.P50 })},
			{"p99", blue, times(part, func(r *spread) float64 { return r.P99 })},
			{"last", orange, times(part, func(r *spread) float64 { return r.Max })},
		}
	}
	return []panel{
		{"Memory of the hub", "MiB", 954, []line{
			{"resident", blue, idle(func(_ *step, i *idleness) float64 { return i.Resident })},
			{"anonymous", orange, idle(func(_ *step, i *idleness) float64 { return i.Anonymous })},
		}},
		{"CPU of the hub when idle", "% of a core", 0, []line{{"CPU", blue, idle(func(_ *step, i *idleness) float64 { return i.CPU })}}},
		{"A release until its report", "s", 15, three(func(s *step) *spread { return s.Release })},
		{"Hub killed until in sync", "s", 60, three(func(s *step) *spread { return s.Restart })},
	}
}

// plot draws all panels as SVG (SVG 1.1, https://www.w3.org/TR/SVG11).
func plot(r *result) string {
	all := panels()
	var b strings.Builder
	width, height := 2*panelWidth, panelHeight*float64((len(all)+1)/2)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" fill="#ffffff"/>`+"\n", width, height)
	for i, p := range all {
		p.draw(&b, r, float64(i%2)*panelWidth, float64(i/2)*panelHeight)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p panel) draw(b *strings.Builder, r *result, x0, y0 float64) {
	most, highest := 1.0, p.aim
	for _, s := range r.Steps {
		most = max(most, float64(s.Sites))
		for _, l := range p.lines {
			if v := l.of(s); !math.IsNaN(v) {
				highest = max(highest, v)
			}
		}
	}
	highest = ceiling(highest)
	x := func(sites float64) float64 { return x0 + left + sites/most*(panelWidth-left-right) }
	y := func(v float64) float64 { return y0 + panelHeight - bottom - v/highest*(panelHeight-top-bottom) }
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" font-size="13" font-weight="bold">%s (%s)</text>`+"\n", x0+left, y0+16, p.title, p.unit)
	for i := range 5 {
		v := highest * float64(i) / 4
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/><text x="%.1f" y="%.1f" text-anchor="end">%g</text>`+"\n", x(0), y(v), x(most), y(v), x(0)-6, y(v)+4, v)
	}
	for _, s := range r.Steps {
		if s.WebSocket == 0 {
			fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%d</text>`+"\n", x(float64(s.Sites)), y(0)+16, s.Sites)
		}
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">sites</text>`+"\n", x(most/2), y(0)+30)
	if p.aim > 0 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#888888" stroke-dasharray="5 4"/><text x="%.1f" y="%.1f" text-anchor="end" fill="#666666">aim</text>`+"\n", x(0), y(p.aim), x(most), y(p.aim), x(most), y(p.aim)-4)
	}
	for i, l := range p.lines {
		p.drawLine(b, r, l, x, y)
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="%s">%s</text>`+"\n", x0+left+8+float64(i)*70, y0+30, l.colour, l.name)
	}
}

func (p panel) drawLine(b *strings.Builder, r *result, l line, x, y func(float64) float64) {
	var points []string
	for _, s := range r.Steps {
		v := l.of(s)
		if math.IsNaN(v) {
			continue
		}
		px, py := x(float64(s.Sites)), y(v)
		points = append(points, fmt.Sprintf("%.1f,%.1f", px, py))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", px, py, l.colour)
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), l.colour)
}

// ceiling is the next number above v of which a quarter is easily read.
func ceiling(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, n := range []float64{1, 2, 4, 6, 8, 10} {
		if n*unit >= v {
			return n * unit
		}
	}
	return 10 * unit
}
