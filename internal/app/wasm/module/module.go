// Package module reads a WebAssembly module before it is compiled, and closes what the engine leaves open.
//
// The engine can end a guest at the head of a loop, and nowhere else; a guest that calls itself over and
// over has none, nor has one whose functions call each other twice down a long chain, and while native code
// runs Go's collector waits for it. Harden therefore puts an empty loop at the beginning of every function
// that may call itself, however indirectly, or runs through much code, and before instructions that may move
// all of the memory. It also bounds tables, which the engine counts against no limit, and refuses what a
// guest of ours has no use for.
//
// Only package wasm imports it. Errors wrap ErrModule and say what is wrong; a module that is damaged in
// ways that do not matter here is left to the engine, which validates all of it.
package module

import (
	"errors"
	"fmt"
	"slices"
)

// ErrModule is wrapped by every error about a module that cannot be run.
var ErrModule = errors.New("the module cannot be run")

// Bounds of a module.
const (
	// MaxBytes of a module.
	MaxBytes = 64 << 20
	// MaxTable is how many entries a module's tables may have, together, at most and to begin with; one
	// that declares more room than it begins with is cut to that.
	MaxTable = 1 << 18
	// PageBytes is the unit of memory.
	PageBytes = 64 << 10
)

// Import is a function that the module asks for.
type Import struct{ Module, Name string }

// Module is one that may be compiled.
type Module struct {
	// Binary is what to compile.
	Binary []byte
	// Imports in their order.
	Imports []Import
	// MemoryPages is what an instance begins with.
	MemoryPages uint32
	// Checked is how many functions were given a place where they can be ended.
	Checked int
}

// Wants reports whether the module imports a function.
func (m *Module) Wants(module, name string) bool {
	return slices.Contains(m.Imports, Import{module, name})
}

// The sections of a module that matter here, by their ids in the binary format.
const (
	sectionCustom = 0
	sectionImport = 2
	sectionTable  = 4
	sectionMemory = 5
	sectionExport = 7
	sectionCode   = 10
	sectionData   = 11
	sectionCount  = 12
)

var preamble = []byte("\x00asm\x01\x00\x00\x00")

// Harden reads a module and returns what to compile in its place.
func Harden(binary []byte) (*Module, error) {
	if len(binary) > MaxBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed: %w", len(binary), MaxBytes, ErrModule)
	}
	if len(binary) < len(preamble) || string(binary[:len(preamble)]) != string(preamble) {
		return nil, fmt.Errorf("this is no WebAssembly module of version 1 (a component is none either): %w", ErrModule)
	}
	h := hardener{exports: map[string]byte{}}
	h.out = append(make([]byte, 0, len(binary)+len(binary)/64), preamble...)
	r := reader{data: binary[len(preamble):]}
	for r.more() {
		id := r.byte()
		body := r.bytes(r.u32())
		if r.bad {
			return nil, fmt.Errorf("the module is cut short: %w", ErrModule)
		}
		if err := h.section(id, body); err != nil {
			return nil, err
		}
	}
	return h.finish()
}

type hardener struct {
	m       Module
	out     []byte
	exports map[string]byte // by name: the kind of what is exported
	memory  bool
	// counted says that the code refers to pieces of data by their numbers.
	counted bool
}

func (h *hardener) section(id byte, body []byte) error {
	r := reader{data: body}
	var err error
	switch id {
	case sectionCustom:
		// Of these only names are of use, in what a trap says. The others may hold offsets that move.
		if string(r.bytes(r.u32())) != "name" {
			return nil
		}
		r.bad = false
	case sectionImport:
		err = h.imports(&r)
	case sectionTable:
		body, err = h.tables(&r)
	case sectionMemory:
		err = h.memories(&r)
	case sectionExport:
		for range r.u32() {
			name := string(r.bytes(r.u32()))
			kind := r.byte()
			r.u32()
			if r.bad {
				break
			}
			h.exports[name] = kind
		}
	case sectionCount:
		h.counted = true
	case sectionData:
		if !h.counted {
			body = joinData(body)
		}
	case sectionCode:
		body, h.m.Checked, err = checkCalls(&r, len(h.m.Imports))
	}
	if err == nil && r.bad {
		err = fmt.Errorf("section %d is damaged: %w", id, ErrModule)
	}
	if err != nil {
		return err
	}
	h.out = append(h.out, id)
	h.out = appendU32(h.out, uint32(len(body)))
	h.out = append(h.out, body...)
	return nil
}

const (
	kindFunction = 0
	kindMemory   = 2
)

func (h *hardener) imports(r *reader) error {
	for range r.u32() {
		imp := Import{string(r.bytes(r.u32())), string(r.bytes(r.u32()))}
		kind := r.byte()
		if r.bad {
			return nil
		}
		if kind != kindFunction {
			return fmt.Errorf("it imports %s.%s, which is no function; memory and tables must be its own: %w", imp.Module, imp.Name, ErrModule)
		}
		r.u32()
		h.m.Imports = append(h.m.Imports, imp)
	}
	return nil
}

// tables writes the section anew, with a bound on what each may grow to.
func (h *hardener) tables(r *reader) ([]byte, error) {
	n := r.u32()
	out := appendU32(nil, n)
	var total uint64
	for range n {
		if r.bad {
			return nil, nil
		}
		kind, flags, least := r.byte(), r.byte(), r.u32()
		most := uint32(MaxTable)
		if flags&1 != 0 {
			most = r.u32()
		}
		if flags > 1 {
			return nil, fmt.Errorf("a table has the unknown limits %#x: %w", flags, ErrModule)
		}
		total += uint64(least)
		if total > MaxTable {
			return nil, fmt.Errorf("its tables begin with %d entries, at most %d are allowed: %w", total, MaxTable, ErrModule)
		}
		most = max(least, min(most, MaxTable/max(1, n)))
		out = append(out, kind, 1)
		out = appendU32(out, least)
		out = appendU32(out, most)
	}
	return out, nil
}

func (h *hardener) memories(r *reader) error {
	for range r.u32() {
		flags := r.byte()
		least := r.u32()
		if flags&1 != 0 {
			r.u32()
		}
		if r.bad {
			return nil
		}
		if flags > 1 {
			return fmt.Errorf("its memory is shared or has 64 bits, which is not supported: %w", ErrModule)
		}
		if h.memory {
			return fmt.Errorf("it has two memories: %w", ErrModule)
		}
		h.memory, h.m.MemoryPages = true, least
	}
	return nil
}

func (h *hardener) finish() (*Module, error) {
	if kind, ok := h.exports["_start"]; !ok || kind != kindFunction {
		return nil, fmt.Errorf("it exports no function _start: build it as a command of WASI preview 1, not as a library: %w", ErrModule)
	}
	if kind, ok := h.exports["memory"]; !ok || kind != kindMemory || !h.memory {
		return nil, fmt.Errorf("it exports no memory of its own: %w", ErrModule)
	}
	h.m.Binary = h.out
	return &h.m, nil
}
