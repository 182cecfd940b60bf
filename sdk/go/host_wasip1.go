//go:build wasip1

package skerry

import (
	"bytes"
	"unsafe"
)

// codeNotAtSite is never answered by a site.
const codeNotAtSite = 1 << 31

//go:wasmimport skerry ready
func hostReady() uint32

//go:wasmimport skerry error
func hostError(into unsafe.Pointer, room uint32, n unsafe.Pointer) uint32

//go:wasmimport skerry kv_get
func hostGet(key unsafe.Pointer, keyLen uint32, into unsafe.Pointer, room uint32, n unsafe.Pointer) uint32

//go:wasmimport skerry kv_put
func hostPut(key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32) uint32

//go:wasmimport skerry kv_delete
func hostDelete(key unsafe.Pointer, keyLen uint32) uint32

//go:wasmimport skerry kv_list
func hostList(prefix unsafe.Pointer, prefixLen uint32, after unsafe.Pointer, afterLen uint32, into unsafe.Pointer, room uint32, n unsafe.Pointer) uint32

//go:wasmimport skerry http_open
func hostOpen(request unsafe.Pointer, requestLen uint32, answer unsafe.Pointer) uint32

//go:wasmimport skerry http_read
func hostRead(answer uint32, into unsafe.Pointer, room uint32, n unsafe.Pointer) uint32

//go:wasmimport skerry http_close
func hostClose(answer uint32) uint32

//go:wasmimport wasi_snapshot_preview1 environ_sizes_get
func environSizes(count, size unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 environ_get
func environGet(pointers, text unsafe.Pointer) uint32

var host site = atSite{}

type atSite struct{}

func text(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }
func data(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func (atSite) ready() ([]string, uint32) {
	if code := hostReady(); code != codeOK {
		return nil, code
	}
	var count, size uint32
	if errno := environSizes(unsafe.Pointer(&count), unsafe.Pointer(&size)); errno != 0 {
		return nil, errno
	}
	if count == 0 || size == 0 {
		return nil, codeOK
	}
	pointers, buf := make([]uint32, count), make([]byte, size)
	if errno := environGet(unsafe.Pointer(&pointers[0]), data(buf)); errno != 0 {
		return nil, errno
	}
	var environ []string
	for kv := range bytes.SplitSeq(bytes.TrimSuffix(buf, []byte{0}), []byte{0}) {
		environ = append(environ, string(kv))
	}
	return environ, codeOK
}

func (atSite) said() string {
	buf := make([]byte, 1<<10)
	var n uint32
	if hostError(data(buf), uint32(len(buf)), unsafe.Pointer(&n)) != codeOK {
		return ""
	}
	return string(buf[:n])
}

func (atSite) get(key string, into []byte) (n, code uint32) {
	code = hostGet(text(key), uint32(len(key)), data(into), uint32(len(into)), unsafe.Pointer(&n))
	return n, code
}

func (atSite) put(key string, value []byte) uint32 {
	return hostPut(text(key), uint32(len(key)), data(value), uint32(len(value)))
}

func (atSite) del(key string) uint32 { return hostDelete(text(key), uint32(len(key))) }

func (atSite) list(prefix, after string, into []byte) (n, code uint32) {
	code = hostList(text(prefix), uint32(len(prefix)), text(after), uint32(len(after)), data(into), uint32(len(into)), unsafe.Pointer(&n))
	return n, code
}

func (atSite) open(request []byte) (answer, code uint32) {
	code = hostOpen(data(request), uint32(len(request)), unsafe.Pointer(&answer))
	return answer, code
}

func (atSite) read(answer uint32, into []byte) (n, code uint32) {
	code = hostRead(answer, data(into), uint32(len(into)), unsafe.Pointer(&n))
	return n, code
}

func (atSite) close(answer uint32) uint32 { return hostClose(answer) }
