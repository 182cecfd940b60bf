package app

import (
	"fmt"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// MethodLogs is the call method that streams an app's log from a site, as text; its body is a LogsRequest.
const MethodLogs = "app-logs"

// MaxTail bounds LogsRequest.Tail; DefaultTail is what command lines and pages ask for when nobody says.
const (
	DefaultTail = 100
	MaxTail     = 10_000
)

// LogsRequest asks a site for an app's log. It crosses the bus.
type LogsRequest struct {
	App fleet.AppKey `json:"app"`
	// Tail is how many of the last lines come first: zero means none, a negative number all that is kept.
	// It is cut to MaxTail.
	Tail int `json:"tail"`
	// Follow goes on with each new line until the caller ends the stream.
	Follow bool `json:"follow,omitempty"`
}

// DecodeLogsRequest reads a request, checks it, and puts the number of lines in place of Tail.
func DecodeLogsRequest(data []byte) (LogsRequest, error) {
	var r LogsRequest
	if err := wire.DecodeJSON("logs request", data, &r); err != nil {
		return LogsRequest{}, err
	}
	return r.Checked()
}

// Checked returns the request with the number of lines in place of Tail, or what is wrong with it.
func (r LogsRequest) Checked() (LogsRequest, error) {
	if err := r.App.Validate(); err != nil {
		return LogsRequest{}, fmt.Errorf("logs request: %w: %w", err, wire.ErrMessage)
	}
	if r.Tail < 0 {
		r.Tail = MaxTail
	}
	r.Tail = min(r.Tail, MaxTail)
	return r, nil
}
