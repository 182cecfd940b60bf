package wasm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/wasm/wasmtest"
)

func handmade(t testing.TB, m wasmtest.Module) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hand.wasm")
	if err := os.WriteFile(file, m.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What no compiler makes, an attacker does: the engine alone would not end the first, and would give the
// second all of the machine's memory.
func TestHostileModules(t *testing.T) {
	k := newKitchen(t, nil)
	good := k.serve("good", goGuest(t, "kitchen"), nil)
	doubling := [][]byte{{0x01}} // function n calls function n-1 twice: 2^40 calls without a loop or a circle
	for n := range byte(40) {
		doubling = append(doubling, []byte{0x10, n, 0x10, n})
	}
	// Two functions that call each other twice, to a depth that a byte of memory counts.
	at := []byte{0x41, 0x00, 0x41, 0x00, 0x2d, 0x00, 0x00}
	step := func(by byte) []byte { return slices.Concat(at, []byte{0x41, by, 0x6a, 0x3a, 0x00, 0x00}) } // memory[0] += by
	twice := slices.Concat(
		[]byte{0x41, 0x00, 0x2d, 0x00, 0x00, 0x41, 0x28, 0x4f, 0x04, 0x40, 0x0f, 0x0b}, // if memory[0] >= 40 return
		step(1), []byte{0x10, 0x00, 0x10, 0x00}, step(0x7f))
	fills := []byte{0x41, 0xff, 0x03, 0x40, 0x00, 0x1a} // memory.grow by 511 pages
	for range 3000 {
		fills = append(fills, 0x41, 0, 0x41, 1, 0x41, 0x80, 0x80, 0x80, 0x10, 0xfc, 0x0b, 0)
	}
	for name, row := range map[string]struct {
		module wasmtest.Module
		status int
		reason string
		why    string
	}{
		"circles without loops": {wasmtest.Module{Functions: [][]byte{twice}}, 504, "time", "two to the power of 40 calls, never deep"},
		"calls without circles": {wasmtest.Module{Functions: doubling}, 504, "time", "as many calls, and none to itself"},
		"endless depth":         {wasmtest.Module{Functions: [][]byte{{0x10, 0x00}}}, 500, "trap", "the stack ends"},
		"a table that grows": {wasmtest.Module{TableMin: 1, Functions: [][]byte{{
			0xd0, 0x70, 0x41, 0xff, 0xff, 0xff, 0xff, 0x07, 0xfc, 0x0f, 0x00, 0x41, 0x7f, 0x47, 0x04, 0x40, 0x03, 0x40, 0x0c, 0x00, 0x0b, 0x0b, 0x00,
		}}}, 500, "trap", "it is refused room for 2^31 entries, and traps; else it would loop"},
		"much of memory at a time": {wasmtest.Module{MemoryFlags: 1, Functions: [][]byte{fills}}, 504, "time", "three thousand fills of 32 MiB without a call"},
		"unreachable":              {wasmtest.Module{Functions: [][]byte{{0x00}}}, 500, "trap", "a trap is told"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := k.serve("bad", handmade(t, row.module), func(s *appsite.Spec, c *app.WasmConfig) {
				c.Limits = app.WasmLimits{TimeoutSeconds: 2, Prepared: -1}
				if row.reason == "trap" {
					c.Limits.TimeoutSeconds = 60 // the race detector needs some
				}
				s.ID += name[:1] + name[len(name)-1:]
			})
			defer bad.end()
			stop := k.neighbour(good, neighbourWithin)
			defer stop()
			begun := time.Now()
			status, reason := bad.reason("/")
			if status != row.status || reason != row.reason {
				t.Errorf("got %d for %q, want %d for %q: %s", status, reason, row.status, row.reason, row.why)
			}
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
