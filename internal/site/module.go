package site

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// Module is one capability of a site. Its life: Start once, then Apply for each new version of its
// section, then Stop once. The agent calls them from one goroutine; Report may come at any time.
type Module interface {
	// Name is the module's name in logs, metrics and reports, and that of the section it owns.
	Name() string
	// Start begins the module's work. It must not wait for the network. An error ends the agent.
	Start(ctx context.Context) error
	// Apply makes body, the newest version of the module's section, what the module works towards; nil
	// when the section is gone. It returns soon: long work goes on in the module's own goroutines. An
	// error means that the body cannot be understood; it is reported, and the last good one stays.
	Apply(ctx context.Context, body []byte, facts fleet.Facts) error
	// Report returns the module's part of the site's state document; nil when there is nothing to say.
	Report() any
	// Stop ends the module's work in order and waits for its goroutines. When ctx ends it stops hard.
	Stop(ctx context.Context) error
}

// Wiper is a Module that keeps something a deleted site must lose.
type Wiper interface {
	// Wipe removes everything the module keeps at this site, data included, and returns when it is gone.
	Wipe(ctx context.Context) error
}

// LinkWatcher is a Module that wants to know whether the hub can be reached.
type LinkWatcher interface {
	// LinkChanged is called once after Start and whenever the link changes, from the agent's goroutine.
	LinkChanged(fleet.Link)
}

// Hearer is a Module that listens for the site's neighbours.
type Hearer interface {
	// Hears returns the neighbours that the module looks for, and whether it hears them.
	Hears() map[fleet.SiteName]bool
}

// Host is what the agent gives a module when it is made. All of it is safe for concurrent use.
type Host struct {
	// Name of this site.
	Name fleet.SiteName
	// Dir is the module's own directory below the agent's data directory, made before use, mode 0700.
	Dir string
	// Log carries the module's name.
	Log *slog.Logger
	// Metrics is where the module registers its own; names start with "skerry_".
	Metrics prometheus.Registerer
	// Bucket is the module's own part of the site's store.
	Bucket *store.Bucket
	// Content is the site's content directory.
	Content Content
	// Router is the site's gateway; a Router that drops everything when the site has none.
	Router Router
	// Changed tells the agent that Report would now say something new. It never blocks.
	Changed func()
	// Events is where the module says what happened.
	Events Events
	// Local serves the agent's local socket: only the machine's own administrator reaches it.
	Local *http.ServeMux
	// Calls is where the module registers what the hub may ask it.
	Calls Calls
}

// Events takes what happened at the site: it is kept on the disk until the hub has it.
type Events interface {
	// Add takes an event. It neither fails nor waits for the disk; texts that are too long are cut.
	Add(fleet.Event)
}

// Content gives modules the content that their sections name.
type Content interface {
	// Ensure returns when every blob is on this site's disk and verified, fetching what is missing.
	// Without a network it waits until ctx ends. Blobs stay until Keep no longer names them.
	Ensure(ctx context.Context, repository string, refs ...ContentRef) error
	// Read returns a blob of at most MaxRead bytes, verified; fs.ErrNotExist when it is not on disk. A
	// blob that is corrupt is removed and answered with an error that wraps fleet.ErrDigest.
	Read(digest fleet.Digest) ([]byte, error)
	// Path returns the file of a blob after verifying it, with the errors of Read. The file is read-only.
	Path(digest fleet.Digest) (string, error)
	// Keep names every blob that owner still needs; what no owner names is collected later.
	Keep(owner string, digests []fleet.Digest) error
}

// MaxRead bounds what Content.Read returns.
const MaxRead = 4 << 20

// ContentRef names a blob to fetch.
type ContentRef struct {
	Digest fleet.Digest `json:"digest"`
	// Size in bytes; a blob of another size is refused.
	Size int64 `json:"size"`
	// Manifest says that the blob is an OCI manifest or index, which the registry serves on another path.
	Manifest bool `json:"manifest,omitempty"`
}

// Calls is where modules say what the hub may ask of them.
type Calls interface {
	// Handle answers calls of a method with one reply.
	Handle(method string, fn func(ctx context.Context, body json.RawMessage) (any, error))
	// HandleStream answers calls of a method with a stream: fn writes to out until ctx ends. Writes of
	// any size are split; they block while the caller does not keep up.
	HandleStream(method string, fn func(ctx context.Context, body json.RawMessage, out Stream) error)
}

// Stream is the way back of a long answer.
type Stream interface {
	Write(p []byte) (int, error)
}
