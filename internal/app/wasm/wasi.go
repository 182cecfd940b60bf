package wasm

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Error numbers of WASI preview 1.
const (
	errnoSuccess = 0
	errnoFault   = 21
	errnoNotsup  = 58
)

// instantiateWASI gives guests WASI preview 1 as wazero has it, but for three functions.
func instantiateWASI(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	i32 := api.ValueTypeI32
	for name, fn := range map[string]api.GoModuleFunc{
		"environ_sizes_get": environSizesGet,
		"environ_get":       environGet,
		// wazero makes room for every number below the new one: one call could take all of the agent's memory.
		"fd_renumber": func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = errnoNotsup },
	} {
		b.NewFunctionBuilder().WithGoModuleFunction(fn, []api.ValueType{i32, i32}, []api.ValueType{i32}).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("functions of WASI: %w", err)
	}
	return nil
}

// environment is what the guest is shown. One that says by itself when it is ready is shown what the bundle
// and the site declare until then.
func (g *guest) environment() []string {
	if g.p.saysReady && !g.ready {
		return g.p.env
	}
	g.await()
	env := g.p.env
	return append(env[:len(env):len(env)], g.job.env...)
}

func environSizesGet(ctx context.Context, m api.Module, stack []uint64) {
	env := guestOf(ctx).environment()
	size := 0
	for _, kv := range env {
		size += len(kv) + 1
	}
	mem := m.Memory()
	ok := mem.WriteUint32Le(uint32(stack[0]), uint32(len(env))) && mem.WriteUint32Le(uint32(stack[1]), uint32(size))
	stack[0] = errno(ok)
}

func environGet(ctx context.Context, m api.Module, stack []uint64) {
	mem := m.Memory()
	pointers, text := uint32(stack[0]), uint32(stack[1])
	ok := true
	for _, kv := range guestOf(ctx).environment() {
		ok = ok && mem.WriteUint32Le(pointers, text) && mem.WriteString(text, kv) && mem.WriteByte(text+uint32(len(kv)), 0)
		pointers += 4
		text += uint32(len(kv)) + 1
	}
	stack[0] = errno(ok)
}

func errno(ok bool) uint64 {
	if ok {
		return errnoSuccess
	}
	return errnoFault
}
