package module_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app/wasm/module"
	"github.com/skerry-dev/skerry/internal/app/wasm/wasmtest"
	"github.com/skerry-dev/skerry/internal/testenv"
)

func TestChecksWhereCallsCircle(t *testing.T) {
	type fn = []byte
	call := func(to byte) []byte { return []byte{0x10, to} }
	join := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	indirect := []byte{0x41, 0x00, 0x11, 0x00, 0x00} // i32.const 0, call_indirect
	leaf := []byte{0x01}
	doubling := func(n byte) []fn {
		out := []fn{leaf}
		for i := range n {
			out = append(out, join(call(i), call(i)))
		}
		return out
	}
	for _, tt := range []struct {
		reason    string
		functions []fn
		checked   int
	}{
		{"nothing calls anything", []fn{leaf, leaf}, 0},
		{"a chain ends by itself", []fn{call(1), call(2), leaf}, 0},
		{"a function that calls itself", []fn{call(0)}, 1},
		{"the caller of one that calls itself runs once", []fn{call(1), call(1)}, 1},
		{"two that call each other", []fn{call(1), call(2), call(1)}, 2},
		{"whichever may be the caller itself", []fn{indirect, leaf}, 1},
		{"whoever is called by one that may be called back", []fn{join(leaf, call(1)), indirect}, 2},
		{"a loop at the beginning is a check already", []fn{{0x03, 0x40, 0x10, 0x00, 0x0b}}, 0},
		{"a loop that may be passed by is none", []fn{{0x41, 0x00, 0x0d, 0x00, 0x03, 0x40, 0x0b, 0x10, 0x00}}, 1},
		{"an instruction that is not known may be a call", []fn{{0x06, 0x10, 0x00}}, 1},
		{"vector and bulk instructions are read over", []fn{join([]byte{0xfd, 12}, make([]byte, 16), []byte{0x1a, 0xfc, 0x0a, 0, 0, 0x43, 0x10, 0, 0, 0}, leaf)}, 0},
		{"a chain that doubles at each step", doubling(40), 5},
		{"a branch table is read over", []fn{{0x41, 0x00, 0x0e, 0x02, 0x10, 0x00, 0x00}}, 0},
	} {
		m, err := module.Harden(wasmtest.Module{Functions: tt.functions}.Bytes())
		if err != nil || m.Checked != tt.checked {
			t.Errorf("%s: %d functions were checked (%v), want %d", tt.reason, m.Checked, err, tt.checked)
		}
	}
}

func TestHardenRefuses(t *testing.T) {
	good := wasmtest.Module{Functions: [][]byte{{0x01}}}
	with := func(edit func(*wasmtest.Module)) []byte {
		m := good
		edit(&m)
		return m.Bytes()
	}
	for _, tt := range []struct {
		reason string
		binary []byte
		says   string
	}{
		{"text is no module", []byte("(module)"), "no WebAssembly module"},
		{"a component is none", []byte("\x00asm\x0d\x00\x01\x00"), "component"},
		{"half a module", good.Bytes()[:len(good.Bytes())-2], "cut short"},
		{"a library has no _start", with(func(m *wasmtest.Module) { m.NoStart = true }), "_start"},
		{"no memory", with(func(m *wasmtest.Module) { m.NoMemory = true }), "memory"},
		{"shared memory", with(func(m *wasmtest.Module) { m.MemoryFlags = 3 }), "shared"},
		{"a table of 80 GB", with(func(m *wasmtest.Module) { m.TableMin = 1 << 30 }), "tables begin with"},
	} {
		if _, err := module.Harden(tt.binary); !errors.Is(err, module.ErrModule) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: error %v, want ErrModule that says %q", tt.reason, err, tt.says)
		}
	}
}

func TestHardenReadsRealModules(t *testing.T) {
	testenv.Require(t, testenv.Tool("go"))
	dir := t.TempDir()
	out := filepath.Join(dir, "a.wasm")
	cmd := exec.Command("go", "build", "-o", out, "../testdata/kitchen")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	m, err := module.Harden(data)
	if err != nil {
		t.Fatal(err)
	}
	if m.Checked == 0 || m.MemoryPages == 0 || !m.Wants("wasi_snapshot_preview1", "fd_write") || m.Wants("skerry", "ready") {
		t.Errorf("checked %d, %d pages, imports %v", m.Checked, m.MemoryPages, m.Imports)
	}
	// What was hardened has nothing left to mend but names: each check is a loop at the beginning.
	again, err := module.Harden(m.Binary)
	if err != nil || again.Checked != 0 {
		t.Errorf("hardened again it was checked in %d places, %v", again.Checked, err)
	}
	if diff := cmp.Diff(m.Binary, again.Binary); diff != "" {
		t.Error("hardening twice differs from once")
	}
}

func FuzzHarden(f *testing.F) {
	f.Add(wasmtest.Module{Functions: [][]byte{{0x10, 0x00}, {0x41, 0x00, 0x11, 0x00, 0x00}}, TableMin: 1}.Bytes())
	f.Add(wasmtest.Module{Functions: [][]byte{{0x03, 0x40, 0x0c, 0x00, 0x0b}}}.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := module.Harden(data)
		if err != nil {
			if !errors.Is(err, module.ErrModule) {
				t.Errorf("error does not wrap ErrModule: %v", err)
			}
			return
		}
		if _, err := module.Harden(m.Binary); err != nil {
			t.Errorf("what was hardened is refused: %v", err)
		}
	})
}
