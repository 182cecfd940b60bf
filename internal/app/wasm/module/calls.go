package module

import (
	"fmt"
	"slices"
)

// check is an empty loop: the engine asks at its head whether the guest is to end.
var check = []byte{0x03, 0x40, 0x0b} // loop (no result), end

// Bounds on what runs between two checks.
const (
	// maxWeight is how many bytes of code a call may run through, its own calls included, without a check at
	// its beginning. What weighs more hardly feels one.
	maxWeight = 512
	// maxFunction is how long one function may be, as it runs through all of it once.
	maxFunction = 8 << 20
)

// function is one function's code.
type function struct {
	body []byte
	// begin is where the code begins, behind the locals.
	begin int
	// calls are indexes of functions defined here, one for each place; any says that it may call whichever.
	calls []int
	any   bool
	// looped says that it begins with a loop of its own.
	looped bool
	// bulk is where instructions begin that may take long by themselves.
	bulk []int
}

// checkCalls writes the code section anew, with a check in each function that may call itself or that weighs
// much, and before each instruction that does.
func checkCalls(r *reader, imported int) (out []byte, checked int, err error) {
	n := r.u32()
	if r.bad || uint64(n) > uint64(len(r.data)) {
		r.bad = true
		return nil, 0, nil
	}
	functions := make([]function, n)
	for i := range functions {
		body := r.bytes(r.u32())
		if len(body) > maxFunction {
			return nil, 0, fmt.Errorf("function %d has %d bytes, at most %d are allowed: %w", imported+i, len(body), maxFunction, ErrModule)
		}
		functions[i] = readFunction(body, imported, int(n))
	}
	if r.bad || r.more() {
		return nil, 0, fmt.Errorf("its code is damaged: %w", ErrModule)
	}
	needs := circling(functions)
	weigh(functions, needs)
	out = appendU32(make([]byte, 0, len(r.data)+len(functions)*4), n)
	for i, f := range functions {
		at := f.bulk
		if needs[i] && !f.looped {
			checked++
			at = append([]int{f.begin}, at...)
		}
		out = appendU32(out, uint32(len(f.body)+len(at)*len(check)))
		from := 0
		for _, to := range at {
			out = append(append(out, f.body[from:to]...), check...)
			from = to
		}
		out = append(out, f.body[from:]...)
	}
	return out, checked, nil
}

// weigh adds to needs the functions that run through more than maxWeight of code, and gives those that are
// called from many places as little weight as a check has.
func weigh(functions []function, needs []bool) {
	weights := make([]int, len(functions)) // zero is not known yet
	var of func(i int) int
	of = func(i int) int {
		if weights[i] > 0 {
			return weights[i]
		}
		weights[i] = 1 // also for who is asked of itself on a circle, where there is a check
		sum := len(functions[i].body)
		for _, to := range functions[i].calls {
			sum += of(to)
		}
		if needs[i] = needs[i] || sum > maxWeight; !needs[i] {
			weights[i] = sum
		}
		return weights[i]
	}
	for i := range functions {
		of(i)
	}
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
	emptyLoop := -1  // where a loop without a result began, if that was the last instruction
	checkedAt := -1  // where a check ended, if that was the last
	for r.more() {
		at, before := r.at, emptyLoop
		i := readInstruction(&r)
		emptyLoop = -1
		switch i.kind {
		case callKnown:
			if to := int(i.target) - imported; to >= 0 && to < defined {
				f.calls = append(f.calls, to)
			}
			straight = false
		case callAny:
			f.any, straight = true, false
		case loop:
			f.looped = f.looped || straight
			if r.at == at+2 {
				emptyLoop = at
			}
		case branch:
			straight = false
		case end:
			straight = false
			if before >= 0 {
				checkedAt = r.at
			}
		case bulk:
			if at != checkedAt {
				f.bulk = append(f.bulk, at)
			}
		case unknown:
			f.any, f.looped = true, false
			return f
		}
	}
	if r.bad { // the engine refuses it; until then it may do anything
		f.any, f.looped, f.bulk = true, false, nil
	}
	return f
}

// circling reports which functions lie on a circle of calls, or on a way from one circle to another.
// Function number len(functions) stands for "whichever": what calls indirectly calls it, and it calls all.
func circling(functions []function) []bool {
	whichever := len(functions)
	callees := make([][]int, len(functions)+1)
	for i, f := range functions {
		calls := slices.Sorted(slices.Values(f.calls))
		callees[i] = slices.Compact(calls)
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
