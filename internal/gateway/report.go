// Package gateway is the core of the feature through which callers reach the apps of a site: plain types
// that cross the bus. It imports the kernel alone and does no input or output.
package gateway

// ModuleName is the name of the gateway's module at a site and of its part of the site's report.
const ModuleName = "gateway"

// Report is the module's part of a site's state document. It crosses the bus and is frozen per protocol version.
type Report struct {
	// URL is where callers reach the site, empty while the gateway does not listen.
	URL string `json:"url,omitempty"`
	// Requests and Errors are the sums over all apps since the agent started.
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors"`
	// Unknown counts requests that matched no route.
	Unknown uint64 `json:"unknown"`
}
