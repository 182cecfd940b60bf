package module

// kind is what an instruction means for the way through a function.
type kind int

const (
	plain kind = iota
	callKnown
	callAny
	loop
	// branch is whatever may lead elsewhere than to the next instruction.
	branch
	// bulk instructions may move all of the memory.
	bulk
	// end closes a block, and may be where a branch leads.
	end
	// unknown instructions end the reading: where the next begins is not known.
	unknown
)

type instruction struct {
	kind   kind
	target uint32
}

// readInstruction reads one instruction with what follows its opcode, by the binary format of WebAssembly
// 2.0 (chapter 5.4 of its specification).
func readInstruction(r *reader) instruction {
	op := r.byte()
	switch {
	case op == 0x03: // loop
		r.skipNumber()
		return instruction{kind: loop}
	case op == 0x02: // block
		r.skipNumber()
		return instruction{}
	case op == 0x04: // if
		r.skipNumber()
		return instruction{kind: branch}
	case op == 0x0b: // end
		return instruction{kind: end}
	case op == 0x00, op == 0x05, op == 0x0f: // unreachable, else, return
		return instruction{kind: branch}
	case op == 0x0c, op == 0x0d: // br, br_if
		r.skipNumber()
		return instruction{kind: branch}
	case op == 0x0e: // br_table
		for range r.u32() {
			if r.bad {
				break
			}
			r.skipNumber()
		}
		r.skipNumber()
		return instruction{kind: branch}
	case op == 0x10: // call
		return instruction{kind: callKnown, target: r.u32()}
	case op == 0x11: // call_indirect
		r.skipNumber()
		r.skipNumber()
		return instruction{kind: callAny}
	case op == 0x01, op == 0x1a, op == 0x1b, op == 0xd1: // nop, drop, select, ref.is_null
	case op == 0x1c: // select with types
		r.bytes(r.u32())
	case op >= 0x20 && op <= 0x26: // local.get to table.set
		r.skipNumber()
	case op >= 0x28 && op <= 0x3e: // loads and stores: alignment and offset
		r.skipNumber()
		r.skipNumber()
	case op == 0x3f, op == 0x40: // memory.size, memory.grow
		r.skipNumber()
	case op == 0x41, op == 0x42: // i32.const, i64.const
		r.skipNumber()
	case op == 0x43: // f32.const
		r.bytes(4)
	case op == 0x44: // f64.const
		r.bytes(8)
	case op >= 0x45 && op <= 0xc4: // comparisons, arithmetic, conversions
	case op == 0xd0, op == 0xd2: // ref.null, ref.func
		r.skipNumber()
	case op == 0xfc:
		return readBulk(r)
	case op == 0xfd:
		return readVector(r)
	default:
		return instruction{kind: unknown}
	}
	return instruction{}
}

// readBulk reads what follows 0xfc: saturating conversions, memory and table instructions.
func readBulk(r *reader) instruction {
	switch op := r.u32(); {
	case op <= 7: // i32.trunc_sat_f32_s and its kin
	case op == 9, op == 13, op == 16: // data.drop, elem.drop, table.size
		r.skipNumber()
	case op == 11, op == 15, op == 17: // memory.fill, table.grow, table.fill
		r.skipNumber()
		return instruction{kind: bulk}
	case op == 8, op == 10, op == 12, op == 14: // memory.init, memory.copy, table.init, table.copy
		r.skipNumber()
		r.skipNumber()
		return instruction{kind: bulk}
	default:
		return instruction{kind: unknown}
	}
	return instruction{}
}

// readVector reads what follows 0xfd.
func readVector(r *reader) instruction {
	switch op := r.u32(); {
	case op <= 11, op == 92, op == 93: // loads and stores
		r.skipNumber()
		r.skipNumber()
	case op == 12, op == 13: // v128.const, i8x16.shuffle
		r.bytes(16)
	case op >= 21 && op <= 34: // lanes
		r.byte()
	case op >= 84 && op <= 91: // loads and stores of a lane
		r.skipNumber()
		r.skipNumber()
		r.byte()
	case op <= 0xff: // the rest has nothing behind it
	default:
		return instruction{kind: unknown}
	}
	return instruction{}
}
