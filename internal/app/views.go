package app

import (
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Paths of the hub's views of apps, as patterns of net/http.
const (
	PathStatus = "/view/v1/namespaces/{namespace}/apps/{app}/status"
	PathLogs   = "/view/v1/namespaces/{namespace}/apps/{app}/logs"
)

// StatusView is where one app stands at each of its sites: the hub's answer on PathStatus.
type StatusView struct {
	App     fleet.AppKey `json:"app"`
	Release string       `json:"release,omitempty"`
	Version string       `json:"version,omitempty"`
	Ready   string       `json:"ready,omitempty"`
	Message string       `json:"message,omitempty"`
	Sites   []SiteStatus `json:"sites"`
}

// SiteStatus is one line of a StatusView.
type SiteStatus struct {
	Site fleet.SiteName `json:"site"`
	Link fleet.Link     `json:"link"`
	// LastHeard is in seconds since 1970 by the hub's clock; zero when not since the hub started.
	LastHeard int64    `json:"lastHeard,omitempty"`
	Standing  Standing `json:"standing"`
	// Desired is the release meant for the site; Running the one that answers there.
	Desired  ReleaseRef          `json:"desired"`
	Running  ReleaseRef          `json:"running,omitzero"`
	Phase    fleet.Phase         `json:"phase"`
	Healthy  bool                `json:"healthy"`
	Since    int64               `json:"since,omitempty"`
	Restarts int                 `json:"restarts"`
	URL      string              `json:"url,omitempty"`
	Message  string              `json:"message,omitempty"`
	Counts   fleet.RequestCounts `json:"counts,omitzero"`
	// Conditions are standing remarks of the site, by reason.
	Conditions map[string]string `json:"conditions,omitempty"`
}
