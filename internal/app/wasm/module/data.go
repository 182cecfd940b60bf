package module

// Bounds of what is joined.
const (
	// maxGap is how many zeros are written out to join two pieces of data. Instantiating pays for each piece
	// about as much as for copying this many bytes.
	maxGap = 256
	// maxPiece bounds one piece, so that a few that lie far apart never become much.
	maxPiece = 16 << 20
)

// segment is a piece of what memory begins with.
type segment struct {
	at    uint32
	bytes []byte
	// own says that bytes are a copy, which may grow.
	own bool
}

// joinData writes the data section anew with fewer pieces, where that changes nothing: Go's linker leaves
// zeros out, in thousands of places, and every instance pays for each. A piece is joined to the one before when nothing lies
// behind that yet and the two are close, as memory is zero to begin with. It returns body itself where a piece is of another
// kind; a module that refers to pieces by their numbers is not given to it.
func joinData(body []byte) []byte {
	r := reader{data: body}
	var joined []segment
	var high uint64 // where the highest piece so far ends
	for range r.u32() {
		if r.u32() != 0 || r.byte() != 0x41 { // active, in the one memory, at i32.const
			return body
		}
		at := r.i32()
		if r.byte() != 0x0b {
			return body
		}
		s := segment{at: at, bytes: r.bytes(r.u32())}
		if r.bad {
			return body
		}
		if n := len(joined) - 1; n >= 0 {
			last := &joined[n]
			end := uint64(last.at) + uint64(len(last.bytes))
			if end == high && uint64(s.at) >= end && uint64(s.at)-end <= maxGap && len(last.bytes)+len(s.bytes) < maxPiece {
				if !last.own {
					last.bytes, last.own = append([]byte{}, last.bytes...), true
				}
				last.bytes = append(last.bytes, make([]byte, uint64(s.at)-end)...)
				last.bytes = append(last.bytes, s.bytes...)
				high = uint64(s.at) + uint64(len(s.bytes))
				continue
			}
		}
		joined = append(joined, s)
		high = max(high, uint64(s.at)+uint64(len(s.bytes)))
	}
	if r.more() {
		return body
	}
	out := appendU32(make([]byte, 0, len(body)), uint32(len(joined)))
	for _, s := range joined {
		out = appendI32(append(out, 0, 0x41), int32(s.at))
		out = appendU32(append(out, 0x0b), uint32(len(s.bytes)))
		out = append(out, s.bytes...)
	}
	return out
}
