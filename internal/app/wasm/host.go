package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/skerry-dev/skerry/internal/app/wasm/keyvalue"
	"github.com/skerry-dev/skerry/internal/app/wasm/outbound"
	"github.com/skerry-dev/skerry/internal/store"
)

// hostModule is the module of our own functions, functionReady the one by which a guest says that it is
// prepared.
const (
	hostModule    = "skerry"
	functionReady = "ready"
)

// What our functions return. The numbers are part of the interface (docs/spec/wasm.md).
const (
	codeOK       = 0
	codeFault    = 1 // an address is none of the guest's memory
	codeNotFound = 2
	codeTooSmall = 3 // the buffer is; how much is needed was written
	codeInvalid  = 4 // a key, a value or a request is not as it must be
	codeRefused  = 5 // the bundle does not allow it
	codeLimit    = 6 // a limit is reached
	codeFailed   = 7 // it did not work this time
	codeClosed   = 8 // there is no such answer open
)

// maxReplies bounds the answers that one instance has open.
const maxReplies = 8

// call is one call of a guest to the host.
type call struct {
	*guest
	ctx context.Context
	mem api.Memory
}

// hostFunction returns one of the codes.
type hostFunction func(c call, args []uint32) (uint32, error)

// instantiateHost gives guests our own functions.
func instantiateHost(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(hostModule)
	for name, f := range map[string]struct {
		args int
		fn   hostFunction
	}{
		functionReady: {0, call.ready},
		"http_open":   {3, call.httpOpen}, "http_read": {4, call.httpRead}, "http_close": {1, call.httpClose},
		"kv_get": {5, call.kvGet}, "kv_put": {4, call.kvPut}, "kv_delete": {2, call.kvDelete}, "kv_list": {7, call.kvList},
		"error": {3, call.lastError},
	} {
		params := make([]api.ValueType, f.args)
		for i := range params {
			params[i] = api.ValueTypeI32
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
			args := make([]uint32, f.args)
			for i := range args {
				args[i] = uint32(stack[i])
			}
			c := call{guest: guestOf(ctx), ctx: ctx, mem: m.Memory()}
			c.await()
			code, err := f.fn(c, args)
			if err != nil {
				c.told = err.Error()
				if code == codeOK {
					code = codeFor(err)
				}
			}
			stack[0] = uint64(code)
		}), params, []api.ValueType{api.ValueTypeI32}).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("functions of the site: %w", err)
	}
	return nil
}

var errFault = errors.New("an address is none of the module's memory")

func codeFor(err error) uint32 {
	switch {
	case errors.Is(err, errFault):
		return codeFault
	case errors.Is(err, store.ErrNotFound):
		return codeNotFound
	case errors.Is(err, keyvalue.ErrKey), errors.Is(err, keyvalue.ErrValue), errors.Is(err, outbound.ErrRequest):
		return codeInvalid
	case errors.Is(err, outbound.ErrRefused):
		return codeRefused
	case errors.Is(err, keyvalue.ErrFull):
		return codeLimit
	}
	return codeFailed
}

func (c call) bytes(at, n uint32) ([]byte, error) {
	b, ok := c.mem.Read(at, n)
	if !ok {
		return nil, errFault
	}
	return b, nil
}

func (c call) text(at, n uint32) (string, error) {
	b, err := c.bytes(at, n)
	return string(b), err
}

// give writes data to a buffer of the guest, and its length to where the guest wants that.
func (c call) give(data []byte, at, room, length uint32) (uint32, error) {
	if !c.mem.WriteUint32Le(length, uint32(len(data))) {
		return codeFault, errFault
	}
	if uint64(len(data)) > uint64(room) {
		return codeTooSmall, fmt.Errorf("the buffer has %d bytes, %d are needed", room, len(data))
	}
	if !c.mem.Write(at, data) {
		return codeFault, errFault
	}
	return codeOK, nil
}

// ready is called by a guest that has done all it can do without its request. It returned from await.
func (c call) ready([]uint32) (uint32, error) {
	c.guest.ready = true
	return codeOK, nil
}

func (c call) lastError(a []uint32) (uint32, error) {
	return c.give([]byte(c.told[:min(len(c.told), int(a[1]))]), a[0], a[1], a[2])
}

var errNoStorage = errors.New("the bundle declares no wasm.keyValue")

// kvGet: key, its length; buffer, its room; where the length of the value goes.
func (c call) kvGet(a []uint32) (uint32, error) {
	key, err := c.text(a[0], a[1])
	if err != nil {
		return 0, err
	}
	if c.p.store == nil {
		return codeRefused, errNoStorage
	}
	value, err := c.p.store.Get(key)
	if err != nil {
		return 0, err
	}
	return c.give(value, a[2], a[3], a[4])
}

// kvPut: key, its length; value, its length.
func (c call) kvPut(a []uint32) (uint32, error) {
	key, err := c.text(a[0], a[1])
	if err != nil {
		return 0, err
	}
	value, err := c.bytes(a[2], a[3])
	if err != nil {
		return 0, err
	}
	if c.p.store == nil {
		return codeRefused, errNoStorage
	}
	return codeOK, c.p.store.Put(key, value)
}

// kvDelete: key, its length.
func (c call) kvDelete(a []uint32) (uint32, error) {
	key, err := c.text(a[0], a[1])
	if err != nil {
		return 0, err
	}
	if c.p.store == nil {
		return codeRefused, errNoStorage
	}
	return codeOK, c.p.store.Delete(key)
}

// kvList: prefix, its length; the key after which to begin, its length; buffer, its room; where the length of
// what was written goes. Each key ends with a zero byte; nothing written means that there are no more.
func (c call) kvList(a []uint32) (uint32, error) {
	prefix, err := c.text(a[0], a[1])
	if err != nil {
		return 0, err
	}
	after, err := c.text(a[2], a[3])
	if err != nil {
		return 0, err
	}
	if c.p.store == nil {
		return codeRefused, errNoStorage
	}
	keys, more := c.p.store.List(prefix, after, int(a[5]))
	if len(keys) == 0 && more {
		if !c.mem.WriteUint32Le(a[6], keyvalue.MaxKey+1) {
			return codeFault, errFault
		}
		return codeTooSmall, fmt.Errorf("the buffer has %d bytes, a key may need %d", a[5], keyvalue.MaxKey+1)
	}
	var out strings.Builder
	for _, key := range keys {
		out.WriteString(key)
		out.WriteByte(0)
	}
	return c.give([]byte(out.String()), a[4], a[5], a[6])
}

// httpOpen: request, its length; where the number of the answer goes.
func (c call) httpOpen(a []uint32) (uint32, error) {
	raw, err := c.bytes(a[0], a[1])
	if err != nil {
		return 0, err
	}
	limits := c.p.limits
	if c.job.calls++; c.job.calls > limits.OutboundCalls {
		return codeLimit, fmt.Errorf("at most %d outbound requests are allowed here (wasm.limits.outboundCalls)", limits.OutboundCalls)
	}
	if c.job.bytes += int64(len(raw)); c.job.bytes > limits.OutboundBytes {
		return codeLimit, fmt.Errorf("at most %d bytes may go out and come in here (wasm.limits.outboundBytes)", limits.OutboundBytes)
	}
	if len(c.replies) >= maxReplies {
		return codeLimit, fmt.Errorf("%d answers are open; close one first", maxReplies)
	}
	reply, err := c.p.outbound.Do(c.ctx, raw)
	c.p.metrics.called(c.p.spec.App.String(), err)
	if err != nil {
		return 0, err
	}
	if c.replies == nil {
		c.guest.replies = map[uint32]io.ReadCloser{}
	}
	number := uint32(c.job.calls)
	if !c.mem.WriteUint32Le(a[2], number) {
		_ = reply.Close()
		return codeFault, errFault
	}
	c.replies[number] = reply
	return codeOK, nil
}

// maxReadAtOnce bounds what the host holds for one read.
const maxReadAtOnce = 64 << 10

// httpRead: number of the answer; buffer, its room; where the length of what was read goes, zero at the end.
func (c call) httpRead(a []uint32) (uint32, error) {
	reply := c.replies[a[0]]
	if reply == nil {
		return codeClosed, fmt.Errorf("answer %d is not open", a[0])
	}
	into, err := c.bytes(a[1], min(a[2], maxReadAtOnce))
	if err != nil {
		return 0, err
	}
	n, err := reply.Read(into)
	for n == 0 && err == nil && len(into) > 0 {
		n, err = reply.Read(into)
	}
	if c.job.bytes += int64(n); c.job.bytes > c.p.limits.OutboundBytes {
		return codeLimit, fmt.Errorf("at most %d bytes may go out and come in here (wasm.limits.outboundBytes)", c.p.limits.OutboundBytes)
	}
	if err != nil && !errors.Is(err, io.EOF) && n == 0 {
		return codeFailed, fmt.Errorf("read answer: %w", err)
	}
	if !c.mem.WriteUint32Le(a[3], uint32(n)) {
		return codeFault, errFault
	}
	return codeOK, nil
}

// httpClose: number of the answer.
func (c call) httpClose(a []uint32) (uint32, error) {
	reply := c.replies[a[0]]
	if reply == nil {
		return codeClosed, fmt.Errorf("answer %d is not open", a[0])
	}
	delete(c.replies, a[0])
	_ = reply.Close() // what is left of it is of no interest
	return codeOK, nil
}

// closeReplies lets go of what the guest left open.
func (g *guest) closeReplies() {
	for _, reply := range g.replies {
		_ = reply.Close()
	}
}
