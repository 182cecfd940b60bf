package task

import (
	"fmt"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Paths of the hub's views of tasks, as patterns of net/http; {kind} is "tasks" or "crontasks".
const (
	PathResults = "/view/v1/namespaces/{namespace}/{kind}/{task}/results"
	PathOutput  = "/view/v1/namespaces/{namespace}/{kind}/{task}/output"
)

// Resource is the name of a kind's resource in the Kubernetes API, and in paths.
func (k Kind) Resource() string {
	if k == KindCronTask {
		return "crontasks"
	}
	return "tasks"
}

// Results is where one task stands at each of its sites: the hub's answer on PathResults.
type Results struct {
	Ref
	// Finished says that no site is awaited any more; Reason and Message are those of the object's condition
	// Ready, Stalled that nothing will change until somebody changes something.
	Finished bool         `json:"finished"`
	Stalled  bool         `json:"stalled,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Message  string       `json:"message,omitempty"`
	Sites    []SiteResult `json:"sites"`
}

// SiteResult is one line of Results.
type SiteResult struct {
	Site     fleet.SiteName `json:"site"`
	Link     fleet.Link     `json:"link"`
	Standing Standing       `json:"standing"`
	Message  string         `json:"message,omitempty"`
	// Runs are the newest first.
	Runs []Run `json:"runs,omitempty"`
	// Next, Skipped and Missed are those of a schedule.
	Next    int64  `json:"next,omitempty"`
	Skipped uint64 `json:"skipped,omitempty"`
	Missed  uint64 `json:"missed,omitempty"`
}

// MethodOutput is the call method that streams what a run printed, as text; its body is an OutputRequest.
const MethodOutput = "task-output"

// OutputRequest asks a site for what a run printed. It crosses the bus.
type OutputRequest struct {
	Ref
	// UID is the object's: the output of an earlier one of the same name is not shown.
	UID string `json:"uid"`
	// Run counts from the newest, which is zero.
	Run int `json:"run,omitempty"`
}

// DecodeOutputRequest reads a request and checks it.
func DecodeOutputRequest(data []byte) (OutputRequest, error) {
	var r OutputRequest
	if err := wire.DecodeJSON("output request", data, &r); err != nil {
		return r, err
	}
	if err := r.Ref.Validate(); err != nil {
		return r, fmt.Errorf("output request: %w: %w", err, wire.ErrMessage)
	}
	if r.Run < 0 || r.Run >= MaxHistory {
		return r, fmt.Errorf("output request: run %d, want 0 to %d: %w", r.Run, MaxHistory-1, wire.ErrMessage)
	}
	return r, nil
}
