package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/upkeep/slots"
)

// Health is what an agent says of itself on its local socket.
type Health struct {
	PID int
	// Linked reports whether the hub is reached.
	Linked bool
	// Apps are those of the site, by whether each serves exactly what it was told.
	Apps map[string]bool
}

// askTimeout bounds one question.
const askTimeout = 5 * time.Second

// Ask asks the agent of a data directory.
func Ask(ctx context.Context, dataDir string) (Health, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var status site.Status
	// Only what has been the same since the first release is read: the agent may be of another.
	var apps struct {
		Apps []struct {
			App     fleet.AppKey `json:"app"`
			Phase   fleet.Phase  `json:"phase"`
			Desired release      `json:"desired"`
			Running release      `json:"running"`
		} `json:"apps"`
	}
	client := site.LocalClient(dataDir)
	for path, to := range map[string]any{"/status": &status, "/apps": &apps} {
		if err := get(ctx, client, path, to); err != nil {
			return Health{}, err
		}
	}
	h := Health{PID: status.PID, Linked: status.Link == fleet.LinkConnected, Apps: map[string]bool{}}
	for _, a := range apps.Apps {
		h.Apps[a.App.String()] = a.Phase.Healthy() && a.Running == a.Desired
	}
	return h, nil
}

type release struct {
	Digest fleet.Digest `json:"digest"`
}

func get(ctx context.Context, client *http.Client, path string, to any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the agent answers %s on %s", res.Status, path)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(to); err != nil {
		return fmt.Errorf("the agent's answer on %s cannot be read: %w", path, err)
	}
	return nil
}

// Healthy returns the apps that are, in order.
func (h Health) Healthy() []string {
	var out []string
	for app, ok := range h.Apps {
		if ok {
			out = append(out, app)
		}
	}
	slices.Sort(out)
	return out
}

// worse says what is worse than it was before the upgrade; empty when nothing is. A site that was away before need not
// be connected: no network is not the new agent's fault.
func (h Health) worse(before slots.Record) string {
	for _, app := range before.Healthy {
		if !h.Apps[app] {
			return fmt.Sprintf("app %s was healthy and is not", app)
		}
	}
	if before.Linked && !h.Linked {
		return "the hub was reached and is not"
	}
	return ""
}
