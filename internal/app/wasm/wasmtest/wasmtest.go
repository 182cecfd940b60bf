// Package wasmtest writes small WebAssembly modules by hand, for what no compiler would make. Only tests
// import it.
package wasmtest

// Module is one to write. All functions take and return nothing; the last is exported as _start. It has one
// page of memory.
type Module struct {
	// Functions are their instructions, without locals and the end.
	Functions [][]byte
	// TableMin is how many entries a table begins with; there is none when it is zero.
	TableMin uint32
	// MemoryFlags are those of the memory's limits; with bit 0 it may grow to 65536 pages.
	MemoryFlags byte
	NoStart     bool
	NoMemory    bool
}

// Bytes returns the module.
func (m Module) Bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	add := func(id byte, body []byte) {
		out = append(out, id)
		out = append(number(out, uint32(len(body))), body...)
	}
	add(1, []byte{1, 0x60, 0, 0}) // one type: nothing to nothing
	types := number(nil, uint32(len(m.Functions)))
	for range m.Functions {
		types = append(types, 0)
	}
	add(3, types)
	if m.TableMin > 0 {
		add(4, number([]byte{1, 0x70, 0}, m.TableMin))
	}
	if !m.NoMemory {
		limits := []byte{1, m.MemoryFlags, 1}
		if m.MemoryFlags&1 != 0 {
			limits = number(limits, 65536)
		}
		add(5, limits)
	}
	exports := []byte{0}
	if !m.NoStart {
		exports[0]++
		exports = append(exports, 6)
		exports = append(exports, "_start"...)
		exports = number(append(exports, 0), uint32(len(m.Functions)-1))
	}
	if !m.NoMemory {
		exports[0]++
		exports = append(exports, 6)
		exports = append(exports, "memory"...)
		exports = append(exports, 2, 0)
	}
	add(7, exports)
	code := number(nil, uint32(len(m.Functions)))
	for _, f := range m.Functions {
		code = number(code, uint32(len(f)+2))
		code = append(code, 0) // no locals
		code = append(code, f...)
		code = append(code, 0x0b)
	}
	add(10, code)
	return out
}

// number appends v in LEB128.
func number(out []byte, v uint32) []byte {
	for v >= 0x80 {
		out = append(out, byte(v)|0x80)
		v >>= 7
	}
	return append(out, byte(v))
}
