package app

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// RuntimeWasm runs a WebAssembly module as a CGI program.
const RuntimeWasm = "wasm"

// PlatformWasm is the operating system and architecture of a wasm bundle's one manifest, as OCI writes them.
// A site of any machine takes it.
const (
	PlatformWasmOS   = "wasip1"
	PlatformWasmArch = "wasm"
)

// KeyValueDir is the data directory in which the runtime keeps an app's key-value storage. No bundle may
// name its own data so.
const KeyValueDir = "skerry-kv"

// WasmConfig says how a WebAssembly module of the bundle is run: as a CGI program (RFC 3875), a fresh
// instance for each request.
type WasmConfig struct {
	// Module is the path of the module inside the bundle, such as "bin/hello.wasm".
	Module string `json:"module"`
	// Env is added to the environment; an app may override it.
	Env    map[string]string `json:"env,omitempty"`
	Limits WasmLimits        `json:"limits,omitzero"`
	// Outbound is where the module may send HTTP requests, "host:port" each; nothing when empty. Host is a
	// name, "*.name" for every name below it, "*" for every name, an address, or a network such as
	// "10.0.0.0/8"; port is a number or "*". An address that is not public is reached only when an address
	// or network here holds it, whatever name led there.
	Outbound []string `json:"outbound,omitempty"`
	// KeyValue gives the app key-value storage that outlives releases.
	KeyValue *WasmKeyValue `json:"keyValue,omitempty"`
	// Tasks run as long as the app does, Schedules at their times.
	Tasks     []WasmTask     `json:"tasks,omitempty"`
	Schedules []WasmSchedule `json:"schedules,omitempty"`
	// Data names directories that outlive releases. They are at /data/<name>.
	Data []string `json:"data,omitempty"`
	// ExclusiveData says that two releases may not run beside each other.
	ExclusiveData bool `json:"exclusiveData,omitempty"`
}

// WasmLimits bound a module. Zero means the default, which WithDefaults fills in.
type WasmLimits struct {
	// MemoryBytes of one instance, 64 MiB; at most 1 GiB.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// TimeoutSeconds of one request, 10; at most 3600. Reading the body and writing the answer count.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
	// Concurrency is how many requests are served at once, 16; at most 256. Queue is how many more may
	// wait, 64; at most 4096; -1 for none.
	Concurrency int `json:"concurrency,omitempty"`
	Queue       int `json:"queue,omitempty"`
	// Prepared is how many instances wait ready for a request while the app is in use, 2; at most 64; -1
	// for none.
	Prepared int `json:"prepared,omitempty"`
	// OutputBytes of one answer's body, 32 MiB; at most 4 GiB. HeaderBytes of its header, 16 KiB; at most
	// 256 KiB.
	OutputBytes int64 `json:"outputBytes,omitempty"`
	HeaderBytes int   `json:"headerBytes,omitempty"`
	// OutboundCalls of one request, 16; at most 1000. OutboundBytes is what they send and receive in all,
	// 8 MiB; at most 1 GiB.
	OutboundCalls int   `json:"outboundCalls,omitempty"`
	OutboundBytes int64 `json:"outboundBytes,omitempty"`
}

// WasmKeyValue bounds the key-value storage of an app. Zero means the default.
type WasmKeyValue struct {
	// Keys is how many there may be, 1000; at most 100,000. Bytes is the sum of all keys and values, 16
	// MiB; at most 256 MiB.
	Keys  int   `json:"keys,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// WasmTask is a start of the module that goes on without a request. It is started again whenever it ends.
type WasmTask struct {
	// Name is a DNS label; SKERRY_TASK holds it.
	Name string `json:"name"`
	// Args follow the module's name.
	Args []string `json:"args,omitempty"`
}

// WasmSchedule is a start of the module at certain times.
type WasmSchedule struct {
	Name string   `json:"name"`
	Args []string `json:"args,omitempty"`
	ScheduleRules
	// TimeoutSeconds of one run, 300; at most a day.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
}

// WithDefaults returns the limits that hold.
func (l WasmLimits) WithDefaults() WasmLimits {
	l.MemoryBytes = cmp.Or(l.MemoryBytes, 64<<20)
	l.TimeoutSeconds = cmp.Or(l.TimeoutSeconds, 10)
	l.Concurrency = cmp.Or(l.Concurrency, 16)
	l.Queue = max(0, cmp.Or(l.Queue, 64))
	l.Prepared = max(0, cmp.Or(l.Prepared, 2))
	l.OutputBytes = cmp.Or(l.OutputBytes, 32<<20)
	l.HeaderBytes = cmp.Or(l.HeaderBytes, 16<<10)
	l.OutboundCalls = cmp.Or(l.OutboundCalls, 16)
	l.OutboundBytes = cmp.Or(l.OutboundBytes, 8<<20)
	return l
}

// WithDefaults returns the bounds that hold.
func (k WasmKeyValue) WithDefaults() WasmKeyValue {
	k.Keys = cmp.Or(k.Keys, 1000)
	k.Bytes = cmp.Or(k.Bytes, 16<<20)
	return k
}

// dataDirs names the declared directories and the one of the key-value storage.
func (w *WasmConfig) dataDirs() []string {
	if w.KeyValue == nil {
		return w.Data
	}
	return append(slices.Clone(w.Data), KeyValueDir)
}

// Bounds on the lists of a WasmConfig.
const (
	maxWasmTasks    = 16
	maxOutboundList = 256
)

func (w *WasmConfig) validate() error {
	if !LocalPath(w.Module) {
		return fmt.Errorf("wasm.module: %q is not a path inside the bundle: %w", w.Module, ErrBundle)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Env)) {
		if err := CheckWasmEnv(name, w.Env[name]); err != nil {
			return fmt.Errorf("wasm.env: %w: %w", err, ErrBundle)
		}
	}
	if err := w.Limits.validate(); err != nil {
		return err
	}
	if len(w.Outbound) > maxOutboundList {
		return fmt.Errorf("wasm.outbound: %d entries, at most %d are allowed: %w", len(w.Outbound), maxOutboundList, ErrBundle)
	}
	for i, entry := range w.Outbound {
		if _, err := ParseOutbound(entry); err != nil {
			return fmt.Errorf("wasm.outbound[%d]: %w: %w", i, err, ErrBundle)
		}
	}
	if k := w.KeyValue; k != nil {
		if err := checkRanges("wasm.keyValue", []ranged{{"keys", int64(k.Keys), 100_000}, {"bytes", k.Bytes, 256 << 20}}); err != nil {
			return err
		}
	}
	if err := w.validateTasks(); err != nil {
		return err
	}
	return checkData("wasm.data", w.Data)
}

func (l WasmLimits) validate() error {
	optional := func(n int) int64 { // -1 stands for none
		if n == -1 {
			return 0
		}
		return int64(n)
	}
	return checkRanges("wasm.limits", []ranged{
		{"memoryBytes", l.MemoryBytes, 1 << 30}, {"timeoutSeconds", int64(l.TimeoutSeconds), 3600},
		{"concurrency", int64(l.Concurrency), 256}, {"queue", optional(l.Queue), 4096},
		{"prepared", optional(l.Prepared), 64}, {"outputBytes", l.OutputBytes, 4 << 30},
		{"headerBytes", int64(l.HeaderBytes), 256 << 10}, {"outboundCalls", int64(l.OutboundCalls), 1000},
		{"outboundBytes", l.OutboundBytes, 1 << 30},
	})
}

func (w *WasmConfig) validateTasks() error {
	if n := len(w.Tasks) + len(w.Schedules); n > maxWasmTasks {
		return fmt.Errorf("wasm.tasks: %d with the schedules, at most %d are allowed: %w", n, maxWasmTasks, ErrBundle)
	}
	seen := map[string]bool{}
	check := func(field, name string, args []string) error {
		if err := (fleet.AppKey{Namespace: "task", Name: name}).Validate(); err != nil {
			return fmt.Errorf("%s.name: %w: %w", field, err, ErrBundle)
		}
		if seen[name] {
			return fmt.Errorf("%s.name: %q is named twice: %w", field, name, ErrBundle)
		}
		seen[name] = true
		for i, arg := range args {
			if strings.Contains(arg, "\x00") {
				return fmt.Errorf("%s.args[%d]: %q holds a zero byte: %w", field, i, arg, ErrBundle)
			}
		}
		return nil
	}
	for i, t := range w.Tasks {
		if err := check(fmt.Sprintf("wasm.tasks[%d]", i), t.Name, t.Args); err != nil {
			return err
		}
	}
	for i, s := range w.Schedules {
		field := fmt.Sprintf("wasm.schedules[%d]", i)
		if err := check(field, s.Name, s.Args); err != nil {
			return err
		}
		if err := s.ScheduleRules.Validate(); err != nil {
			return fmt.Errorf("%s.%w: %w", field, err, ErrBundle)
		}
		if err := checkRanges(field, []ranged{{"timeoutSeconds", int64(s.TimeoutSeconds), maxSeconds}}); err != nil {
			return err
		}
	}
	return nil
}

// Outbound is one entry of an allow-list.
type Outbound struct {
	// Name is an exact name, or the part behind the star when Below; with Below an empty Name is every name.
	Name  string
	Below bool
	// Net holds addresses; it is valid when Name is empty and Below false.
	Net netip.Prefix
	// Port is zero for every port.
	Port uint16
}

// ParseOutbound reads an entry of WasmConfig.Outbound.
func ParseOutbound(entry string) (Outbound, error) {
	bad := func(why string) (Outbound, error) {
		return Outbound{}, fmt.Errorf("%q: %s: want host:port such as api.example.com:443, *.example.com:443, 10.0.0.5:80 or [fd00::/8]:*", entry, why)
	}
	cut := strings.LastIndexByte(entry, ':')
	if cut < 0 {
		return bad("no port")
	}
	host, port := entry[:cut], entry[cut+1:]
	var o Outbound
	if port != "*" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad("the port is none")
		}
		o.Port = uint16(n)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(inner, "]"); !ok {
			return bad("a bracket is open")
		}
	} else if strings.Contains(host, ":") {
		return bad("an IPv6 address stands in brackets")
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
		o.Net = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		return o, nil
	}
	if p, err := netip.ParsePrefix(host); err == nil {
		o.Net = p.Masked()
		return o, nil
	}
	if host == "*" {
		o.Below = true
		return o, nil
	}
	o.Name, o.Below = strings.CutPrefix(strings.ToLower(host), "*.")
	if err := checkHost(o.Name); err != nil {
		return bad(err.Error())
	}
	return o, nil
}

func checkHost(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("a host has 1 to 253 bytes")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return errors.New("the host is no name")
		}
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return errors.New("the host is no address") // numbers alone could be read as an IPv4 address
	}
	return nil
}

// cgiEnv are the variables by which a request is told (RFC 3875, section 4.1), and what goes with them.
var cgiEnv = []string{
	"AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "GATEWAY_INTERFACE", "HTTPS", "PATH_INFO", "PATH_TRANSLATED", "QUERY_STRING",
	"REMOTE_ADDR", "REMOTE_HOST", "REMOTE_IDENT", "REMOTE_PORT", "REMOTE_USER", "REQUEST_METHOD", "REQUEST_URI", "SCRIPT_NAME",
	"SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE",
}

// CheckWasmEnv reports whether a variable may be declared for a module: those of a request are the server's.
func CheckWasmEnv(name, value string) error {
	if slices.Contains(cgiEnv, name) || strings.HasPrefix(name, "HTTP_") {
		return fmt.Errorf("variable %q is set by each request", name)
	}
	return CheckEnv(name, value)
}

// maxDataDirs bounds the directories of one bundle.
const maxDataDirs = 64

// checkData checks the names of data directories.
func checkData(field string, names []string) error {
	if len(names) > maxDataDirs {
		return fmt.Errorf("%s: %d names, at most %d are allowed: %w", field, len(names), maxDataDirs, ErrBundle)
	}
	for i, name := range names {
		if err := (fleet.AppKey{Namespace: "data", Name: name}).Validate(); err != nil {
			return fmt.Errorf("%s[%d]: %w: %w", field, i, err, ErrBundle)
		}
		if name == KeyValueDir {
			return fmt.Errorf("%s[%d]: %q is the agent's own: %w", field, i, name, ErrBundle)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("%s[%d]: %q is named twice: %w", field, i, name, ErrBundle)
		}
	}
	return nil
}

// MatchesName reports whether the entry holds a host's name, which is in lower case.
func (o Outbound) MatchesName(name string) bool {
	switch {
	case o.Net.IsValid():
		return false
	case !o.Below:
		return name == o.Name
	case o.Name == "":
		return true
	}
	return strings.HasSuffix(name, "."+o.Name)
}
