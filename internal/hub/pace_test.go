package hub

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		took, after, want time.Duration
		reason            string
	}{
		"brief":      {5 * time.Millisecond, 0, 0, "passes of a small fleet follow each other as they are asked for"},
		"long":       {300 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, "as much time as the pass took goes by without one"},
		"long, over": {300 * time.Millisecond, 300 * time.Millisecond, 0, "the pause is over"},
		"very long":  {20 * time.Second, 0, time.Second, "whoever waits for the next pass waits a second at most"},
		"clock back": {300 * time.Millisecond, -time.Hour, time.Second, "a clock that is set back stops nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			var p Pace
			p.Done("app", start.Add(-tt.took), start)
			if got := p.Wait("app", start.Add(tt.after)); got != tt.want {
				t.Errorf("waits %s, want %s: %s", got, tt.want, tt.reason)
			}
			if got := p.Wait("other", start); got != 0 {
				t.Errorf("another key waits %s, want not at all", got)
			}
			p.Forget("app")
			if got := p.Wait("app", start); got != 0 {
				t.Errorf("one that was forgotten waits %s, want not at all", got)
			}
		})
	}
}
