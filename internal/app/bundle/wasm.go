package bundle

import "github.com/skerry-dev/skerry/internal/app"

// Wasm is app.WasmConfig in units that people write.
type Wasm struct {
	// Module is its path in the bundle; none means the Go program.
	Module        string            `json:"module,omitempty"`
	Env           map[string]string `json:"env,omitempty"`
	Limits        WasmLimits        `json:"limits,omitzero"`
	Outbound      []string          `json:"outbound,omitempty"`
	KeyValue      *KeyValue         `json:"keyValue,omitempty"`
	Tasks         []app.WasmTask    `json:"tasks,omitempty"`
	Schedules     []Schedule        `json:"schedules,omitempty"`
	Data          []string          `json:"data,omitempty"`
	ExclusiveData bool              `json:"exclusiveData,omitempty"`
}

// WasmLimits are app.WasmLimits in units that people write.
type WasmLimits struct {
	Memory        Bytes   `json:"memory,omitempty"`
	Timeout       Seconds `json:"timeout,omitempty"`
	Concurrency   int     `json:"concurrency,omitempty"`
	Queue         int     `json:"queue,omitempty"`
	Prepared      int     `json:"prepared,omitempty"`
	Output        Bytes   `json:"output,omitempty"`
	Header        Bytes   `json:"header,omitempty"`
	OutboundCalls int     `json:"outboundCalls,omitempty"`
	OutboundBytes Bytes   `json:"outboundBytes,omitempty"`
}

// KeyValue is app.WasmKeyValue in units that people write.
type KeyValue struct {
	Keys  int   `json:"keys,omitempty"`
	Bytes Bytes `json:"bytes,omitempty"`
}

// Schedule is app.WasmSchedule in units that people write.
type Schedule struct {
	Name    string   `json:"name"`
	Args    []string `json:"args,omitempty"`
	Cron    string   `json:"cron"`
	Timeout Seconds  `json:"timeout,omitempty"`
	// Concurrency, Missed and StartingDeadline are those of app.ScheduleRules.
	Concurrency      app.Concurrency `json:"concurrency,omitempty"`
	Missed           app.Missed      `json:"missed,omitempty"`
	StartingDeadline Seconds         `json:"startingDeadline,omitempty"`
}

// wasmConfig returns how the module is run.
func (s Source) wasmConfig() *app.WasmConfig {
	w := s.Wasm
	if w == nil {
		w = &Wasm{}
	}
	l := w.Limits
	c := &app.WasmConfig{
		Module: w.Module, Env: w.Env, Outbound: w.Outbound, Tasks: w.Tasks, Data: w.Data, ExclusiveData: w.ExclusiveData,
		Limits: app.WasmLimits{
			MemoryBytes: int64(l.Memory), TimeoutSeconds: int(l.Timeout), Concurrency: l.Concurrency, Queue: l.Queue,
			Prepared: l.Prepared, OutputBytes: int64(l.Output), HeaderBytes: int(l.Header), OutboundCalls: l.OutboundCalls,
			OutboundBytes: int64(l.OutboundBytes),
		},
	}
	if w.KeyValue != nil {
		c.KeyValue = &app.WasmKeyValue{Keys: w.KeyValue.Keys, Bytes: int64(w.KeyValue.Bytes)}
	}
	for _, sched := range w.Schedules {
		c.Schedules = append(c.Schedules, app.WasmSchedule{
			Name: sched.Name, Args: sched.Args, TimeoutSeconds: int(sched.Timeout),
			ScheduleRules: app.ScheduleRules{
				Cron: sched.Cron, Concurrency: sched.Concurrency, Missed: sched.Missed, StartingDeadlineSeconds: int(sched.StartingDeadline),
			},
		})
	}
	if w.Module == "" && s.Build.Go != nil {
		c.Module = s.program()
	}
	return c
}
