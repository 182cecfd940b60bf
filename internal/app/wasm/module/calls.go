package module

import (
	"fmt"
	"slices"
)

// check is an empty loop: the engine asks at its head whether the guest is to end.
var check = []byte{0x03, 0x40, 0x0b} // loop (no result), end

// function is one function's code.
type function struct {
	body []byte
	// begin is where the code begins, behind the locals.
	begin int
	// calls are indexes of functions defined here; any says that it may call whichever.
	calls []int
	any   bool
	// looped says that it begins with a loop of its own.
	looped bool
}

// checkCalls writes the code section anew, with a check in each function that may call itself.
func checkCalls(r *reader, imported int) (out []byte, checked int, err error) {
	n := r.u32()
	if r.bad || uint64(n) > uint64(len(r.data)) {
		r.bad = true
		return nil, 0, nil
	}
	functions := make([]function, n)
	for i := range functions {
		functions[i] = readFunction(r.bytes(r.u32()), imported, int(n))
	}
	if r.bad || r.more() {
		return nil, 0, fmt.Errorf("its code is damaged: %w", ErrModule)
	}
	repeats := circling(functions)
	out = appendU32(make([]byte, 0, len(r.data)+len(functions)*4), n)
	for i, f := range functions {
		if !repeats[i] || f.looped {
			out = appendU32(out, uint32(len(f.body)))
			out = append(out, f.body...)
			continue
		}
		checked++
		out = appendU32(out, uint32(len(f.body)+len(check)))
		out = append(out, f.body[:f.begin]...)
		out = append(out, check...)
		out = append(out, f.body[f.begin:]...)
	}
	return out, checked, nil
}

func readFunction(body []byte, imported, defined int) function {
	f := function{body: body}
	r := reader{data: body}
	for range r.u32() {
		if r.bad {
			break
		}
		r.u32()
		r.byte()
	}
	f.begin = r.at
	straight := true // nothing so far could have led past the next instruction
	for r.more() {
		i := readInstruction(&r)
		switch i.kind {
		case callKnown:
			if to := int(i.target) - imported; to >= 0 && to < defined {
				f.calls = append(f.calls, to)
			}
			straight = false
		case callAny, unknown:
			f.any, straight = true, false
		case loop:
			f.looped = f.looped || straight
		case branch:
			straight = false
		}
		if i.kind == unknown {
			return f
		}
	}
	if r.bad { // the engine refuses it; until then it may do anything
		f.any, f.looped = true, false
	}
	return f
}

// circling reports which functions lie on a circle of calls, or on a way from one circle to another.
// Function number len(functions) stands for "whichever": what calls indirectly calls it, and it calls all.
func circling(functions []function) []bool {
	whichever := len(functions)
	callees := make([][]int, len(functions)+1)
	for i, f := range functions {
		slices.Sort(f.calls)
		callees[i] = slices.Compact(f.calls)
		if f.any {
			callees[i] = append(callees[i], whichever)
		}
		callees[whichever] = append(callees[whichever], i)
	}
	callers := make([][]int, len(callees))
	for from, tos := range callees {
		for _, to := range tos {
			callers[to] = append(callers[to], from)
		}
	}
	in := make([]bool, len(callees))
	for i := range in {
		in[i] = true
	}
	peel(in, callees, callers)
	peel(in, callers, callees)
	return in[:whichever]
}

// peel takes out, again and again, what leads to nothing that is still in.
func peel(in []bool, leads, led [][]int) {
	degree := make([]int, len(in))
	var ends []int
	for i := range in {
		if !in[i] {
			continue
		}
		for _, to := range leads[i] {
			if in[to] {
				degree[i]++
			}
		}
		if degree[i] == 0 {
			ends = append(ends, i)
		}
	}
	for len(ends) > 0 {
		i := ends[len(ends)-1]
		ends = ends[:len(ends)-1]
		in[i] = false
		for _, from := range led[i] {
			if degree[from]--; degree[from] == 0 && in[from] {
				ends = append(ends, from)
			}
		}
	}
}
