package module

// reader reads the binary format. After the end, or a number that is none, bad is set and all it returns is
// zero.
type reader struct {
	data []byte
	at   int
	bad  bool
}

func (r *reader) more() bool { return !r.bad && r.at < len(r.data) }

func (r *reader) byte() byte {
	if !r.more() {
		r.bad = true
		return 0
	}
	b := r.data[r.at]
	r.at++
	return b
}

func (r *reader) bytes(n uint32) []byte {
	if r.bad || uint64(n) > uint64(len(r.data)-r.at) {
		r.bad = true
		return nil
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

// u32 reads an unsigned number in LEB128.
func (r *reader) u32() uint32 {
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		if r.bad {
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.bad = true
	return 0
}

// i32 reads a signed number of 32 bits in LEB128, as its two's complement.
func (r *reader) i32() uint32 {
	var v int64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		if r.bad {
			return 0
		}
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return uint32(v)
		}
	}
	r.bad = true
	return 0
}

// skipNumber reads over a number in LEB128 of up to 64 bits.
func (r *reader) skipNumber() {
	for range 10 {
		if b := r.byte(); r.bad || b < 0x80 {
			return
		}
	}
	r.bad = true
}

func appendI32(out []byte, v int32) []byte {
	for v < -64 || v > 63 {
		out = append(out, byte(v)|0x80)
		v >>= 7
	}
	return append(out, byte(v)&0x7f)
}

func appendU32(out []byte, v uint32) []byte {
	for v >= 0x80 {
		out = append(out, byte(v)|0x80)
		v >>= 7
	}
	return append(out, byte(v))
}
