package wasm

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Reasons for which a request or a run fails. They are the label of skerry_wasm_failures_total and stand in
// what the caller gets.
const (
	reasonTime    = "time"
	reasonMemory  = "memory"
	reasonBudget  = "budget"
	reasonOutput  = "output"
	reasonHeader  = "header"
	reasonExit    = "exit"
	reasonTrap    = "trap"
	reasonBusy    = "busy"
	reasonGone    = "gone"
	reasonLength  = "length"
	reasonTooBig  = "body"
	reasonStopped = "stopped"
)

// failure is why a guest did not do its job. It is never changed.
type failure struct {
	reason string
	// status is what the caller gets when nothing was sent yet.
	status int
	// text is for the caller: whole sentences that say nothing of the app's inside but how it ended.
	text string
}

// Error implements error.
func (f *failure) Error() string { return f.text }

// with returns the failure with what happened in this case.
func (f *failure) with(format string, args ...any) *failure {
	copied := *f
	copied.text += " " + fmt.Sprintf(format, args...)
	return &copied
}

// failures by reason. The map is never written.
var failures = map[string]*failure{
	reasonTime:    {reasonTime, http.StatusGatewayTimeout, "The app took longer than it may."},
	reasonMemory:  {reasonMemory, http.StatusInternalServerError, "The app needed more memory than it may have."},
	reasonBudget:  {reasonBudget, http.StatusServiceUnavailable, "The apps of this site have no memory left for another instance."},
	reasonOutput:  {reasonOutput, http.StatusBadGateway, "The app's answer is longer than it may be."},
	reasonHeader:  {reasonHeader, http.StatusBadGateway, "The app's answer has no header that can be used."},
	reasonExit:    {reasonExit, http.StatusInternalServerError, "The app failed."},
	reasonTrap:    {reasonTrap, http.StatusInternalServerError, "The app failed."},
	reasonBusy:    {reasonBusy, http.StatusServiceUnavailable, "The app serves as many requests as it may. Try again soon."},
	reasonGone:    {reasonGone, http.StatusBadGateway, "The caller is gone."},
	reasonLength:  {reasonLength, http.StatusLengthRequired, "A body of this size must come with its Content-Length."},
	reasonTooBig:  {reasonTooBig, http.StatusRequestEntityTooLarge, "The body is larger than this site takes."},
	reasonStopped: {reasonStopped, http.StatusServiceUnavailable, "The app is being stopped at this site."},
}

// problem is the body of an answer that the runtime gives itself (RFC 9457).
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Reason string `json:"reason"`
	App    string `json:"app"`
}

// answer tells the caller of a failure.
func (f *failure) answer(w http.ResponseWriter, app string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(f.status)
	// A caller that is gone cannot be told.
	_ = json.NewEncoder(w).Encode(problem{http.StatusText(f.status), f.status, f.text, f.reason, app})
}
