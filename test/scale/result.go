package main

// result is the whole page. What a run did not reach is missing.
type result struct {
	Machine string `json:"machine"`
	Go      string `json:"go"`
	// Clients is how many processes played the sites, Full how many of those have stores of their own.
	Clients int `json:"clients"`
	Full    int `json:"full"`
	// Asked is how many sites the run was to reach on NATS' own port.
	Asked int     `json:"asked"`
	Steps []*step `json:"steps"`
	// Failed says what ended the run early.
	Failed string `json:"failed,omitempty"`
}

// step is what was measured at one number of sites.
type step struct {
	// Sites in all; WebSocket of them connect through the hub's one port.
	Sites     int       `json:"sites"`
	WebSocket int       `json:"webSocket,omitempty"`
	Growth    *growth   `json:"growth,omitempty"`
	Idle      *idleness `json:"idle,omitempty"`
	Release   *spread   `json:"release,omitempty"`
	Restart   *spread   `json:"restart,omitempty"`
}

// growth is how sites were added. Times are in seconds.
type growth struct {
	Added int `json:"added"`
	// Import is how long the runs of `skerry site import` took, of which the later ones run while sites join; Join
	// from the first until every site was linked and had reported that it runs the app; Settle from then to the
	// last write to the API.
	Import float64 `json:"importSeconds"`
	Join   float64 `json:"joinSeconds"`
	Settle float64 `json:"settleSeconds"`
	// CPU is what the hub used for all that.
	CPU           float64 `json:"cpuSeconds"`
	Refusals      int     `json:"refusals"`
	Writes        writes  `json:"writes"`
	WritesPerSite float64 `json:"writesPerSite"`
}

// idleness is the hub while nothing happens. Memory is in MiB.
type idleness struct {
	Seconds    float64 `json:"seconds"`
	Resident   float64 `json:"residentMiB"`
	Anonymous  float64 `json:"anonymousMiB"`
	Heap       float64 `json:"goHeapMiB"`
	Stacks     float64 `json:"goStacksMiB"`
	Goroutines float64 `json:"goroutines"`
	// CPU is in percent of one core.
	CPU             float64 `json:"cpuPercent"`
	Writes          writes  `json:"writes"`
	WritesPerSecond float64 `json:"writesPerSecond"`
	// StreamBytes a site and hour in TCP's streams, WireBytes with the headers of the packets, both ways.
	StreamBytes float64 `json:"streamBytesPerSiteHour"`
	WireBytes   float64 `json:"wireBytesPerSiteHour"`
}

// spread is when the sites were reached by something, in seconds since it began.
type spread struct {
	P50 float64 `json:"p50Seconds"`
	P99 float64 `json:"p99Seconds"`
	Max float64 `json:"maxSeconds"`
	// Kinds are the p50 and p99 of each kind of site.
	Kinds map[kind][2]float64 `json:"kinds"`
	// Ready is when the hub served again.
	Ready float64 `json:"readySeconds,omitempty"`
	// Known is when the hub called every site connected.
	Known float64 `json:"knownSeconds,omitempty"`
	// Resident is the memory in MiB of a hub that was restarted, once nothing is written any more.
	Resident float64 `json:"residentMiB,omitempty"`
	CPU      float64 `json:"cpuSeconds"`
	// Writes until the last site; WritesSettled until nothing was written any more, Settle seconds later.
	Writes        writes  `json:"writes"`
	WritesSettled writes  `json:"writesSettled"`
	Settle        float64 `json:"settleSeconds"`
}
