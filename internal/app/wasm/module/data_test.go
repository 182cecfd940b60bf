package module

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// apply writes the pieces of a data section to a memory.
func apply(t *testing.T, body []byte, size int) (memory []byte, pieces int) {
	t.Helper()
	memory = make([]byte, size)
	r := reader{data: body}
	n := r.u32()
	for range n {
		if r.u32() != 0 || r.byte() != 0x41 {
			t.Fatal("not an active piece")
		}
		at := r.i32()
		r.byte()
		copy(memory[at:], r.bytes(r.u32()))
	}
	if r.bad || r.more() {
		t.Fatal("the section is damaged")
	}
	return memory, int(n)
}

func TestJoinData(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		body := appendU32(nil, 50)
		at := 0
		for range 50 {
			switch random.IntN(5) {
			case 0: // over what is there
				at = max(0, at-random.IntN(40))
			case 1: // far away
				at += 2000
			default:
				at += random.IntN(100)
			}
			piece := make([]byte, random.IntN(60))
			for i := range piece {
				piece[i] = byte(random.IntN(256))
			}
			body = append(appendI32(append(body, 0, 0x41), int32(at)), 0x0b)
			body = append(appendU32(body, uint32(len(piece))), piece...)
			at += len(piece)
		}
		want, _ := apply(t, body, 200_000)
		got, pieces := apply(t, joinData(body), 200_000)
		if !bytes.Equal(want, got) {
			t.Fatal("memory begins with something else")
		}
		if pieces > 40 {
			t.Errorf("%d pieces of 50 are left", pieces)
		}
	}
	for reason, body := range map[string][]byte{
		"a passive piece":          {1, 1, 1, 'a'},
		"a piece at a global":      {1, 0, 0x23, 0, 0x0b, 1, 'a'},
		"what is cut short":        {2, 0, 0x41, 0, 0x0b, 1, 'a'},
		"an offset without an end": {1, 0, 0x41, 0, 0x0c, 1, 'a'},
	} {
		if got := joinData(body); !bytes.Equal(got, body) {
			t.Errorf("%s was changed to %v", reason, got)
		}
	}
	for _, v := range []int32{0, 63, 64, -1, -64, -65, 1 << 30, -1 << 31, 1<<31 - 1} {
		r := reader{data: appendI32(nil, v)}
		if got := int32(r.i32()); got != v || r.bad || r.more() {
			t.Errorf("%d is read as %d", v, got)
		}
	}
}
