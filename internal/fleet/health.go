package fleet

// Phase says where one app stands at one site. It is level-triggered: the newest value replaces the last.
type Phase string

// The phases in the order in which a release usually passes them.
const (
	PhasePending  Phase = "Pending"  // told, nothing begun
	PhaseFetching Phase = "Fetching" // content is on its way to the site's disk
	PhaseStarting Phase = "Starting" // running, not yet ready
	PhaseRunning  Phase = "Running"  // ready, serving
	PhaseBackOff  Phase = "BackOff"  // exits or fails its probes; the next start waits
	PhaseFailed   Phase = "Failed"   // cannot run as declared; the message says why
	PhaseStopping Phase = "Stopping" // draining before it goes
)

// Healthy reports whether an app in this phase answers its callers.
func (p Phase) Healthy() bool { return p == PhaseRunning }

// Link says what is known of the connection between a site and the hub.
type Link string

// The states of a link.
const (
	LinkUnknown   Link = "Unknown"
	LinkConnected Link = "Connected"
	LinkAway      Link = "Away"
)

// Facts are what a site is, as its Site object says it; apps may be configured by them.
// The zero value is a site about which the hub said nothing yet.
type Facts struct {
	Name   SiteName          `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Zone   string            `json:"zone,omitempty"`
	// TimeZone is a name of the IANA time zone database, such as "Europe/Berlin"; empty for UTC.
	TimeZone string `json:"timeZone,omitempty"`
}

// Hardware describes the machine that a member runs on.
type Hardware struct {
	Hostname    string `json:"hostname,omitempty"`
	OS          string `json:"os,omitempty"`
	Arch        string `json:"arch,omitempty"`
	Kernel      string `json:"kernel,omitempty"`
	CPUs        int    `json:"cpus,omitempty"`
	MemoryBytes int64  `json:"memoryBytes,omitempty"`
	// Fingerprint tells this machine from others (see ValidateFingerprint); set when a machine joins, empty
	// when it has nothing to be told by. It is public: it proves nothing by itself.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// RequestCounts are what a gateway counted for one app since its agent started. They only grow, and
// start again from zero with the agent.
type RequestCounts struct {
	Requests uint64 `json:"requests"`
	// Errors counts answers with a status of 500 and above, the gateway's own among them.
	Errors uint64 `json:"errors"`
	// Buckets counts answers whose latency is at most LatencyBounds[i] milliseconds; the last entry,
	// beyond all bounds, counts the rest.
	Buckets []uint64 `json:"buckets,omitempty"`
}

// LatencyBounds are the upper bounds of RequestCounts.Buckets in milliseconds.
func LatencyBounds() []float64 {
	return []float64{0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000}
}
