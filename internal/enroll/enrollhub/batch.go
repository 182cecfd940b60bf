package enrollhub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// Bounds of a batch of tokens: its request, and how many records are written at one moment.
const (
	maxBatchBody   = 256 << 10
	batchAtOneTime = 16
)

// tokens serves enroll.PathTokens. All of a batch is checked before any token is made.
func (f *Feature) tokens(w http.ResponseWriter, r *http.Request) {
	// Who may make a token for every site is asked for once; else the right is asked for name by name, which
	// the names come first for.
	right := hub.Right{Verb: "create", Resource: "sites", Subresource: "token"}
	_, everywhere := f.host.People.Check(r, right)
	if everywhere != nil && !errors.Is(everywhere, hub.ErrForbidden) {
		hub.Fail(w, everywhere)
		return
	}
	request, ttl, err := readBatch(w, r)
	if err != nil {
		hub.Fail(w, fmt.Errorf("%w: %w", err, hub.ErrBadRequest))
		return
	}
	for _, s := range request.Sites {
		if everywhere == nil {
			break
		}
		right.Name = string(s.Name)
		if _, err := f.host.People.Check(r, right); err != nil {
			hub.Fail(w, err)
			return
		}
	}
	if err := f.sitesAreThere(r.Context(), request.Sites); err != nil {
		hub.Fail(w, err)
		return
	}
	answer, err := f.makeBatch(r.Context(), request.Sites, ttl)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	hub.Answer(w, http.StatusCreated, answer)
}

func readBatch(w http.ResponseWriter, r *http.Request) (enroll.TokensRequest, time.Duration, error) {
	var request enroll.TokensRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBatchBody))
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		return request, 0, fmt.Errorf("read request: %w", err)
	}
	if n := len(request.Sites); n == 0 || n > enroll.MaxBatch {
		return request, 0, fmt.Errorf("sites: %d are named, want 1 to %d", n, enroll.MaxBatch)
	}
	seen := map[fleet.SiteName]bool{}
	for i, s := range request.Sites {
		err := s.Name.Validate()
		if err == nil && s.Fingerprint != "" {
			err = fleet.ValidateFingerprint(s.Fingerprint)
		}
		if err == nil && seen[s.Name] {
			err = fmt.Errorf("site %q is named twice", s.Name)
		}
		if err != nil {
			return request, 0, fmt.Errorf("sites[%d]: %w", i, err)
		}
		seen[s.Name] = true
	}
	ttl, err := checkTTL(request.TTLSeconds)
	return request, ttl, err
}

// sitesAreThere looks for each site at the API itself: they were probably made a moment ago.
func (f *Feature) sitesAreThere(ctx context.Context, sites []enroll.TokenSite) error {
	var list v1alpha1.SiteList
	if err := f.host.Manager.GetAPIReader().List(ctx, &list); err != nil {
		return fmt.Errorf("list sites: %w", err)
	}
	there := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		there[list.Items[i].Name] = list.Items[i].DeletionTimestamp.IsZero()
	}
	for _, s := range sites {
		if !there[string(s.Name)] {
			return fmt.Errorf("site %q: make it first: %w", s.Name, hub.ErrNotFound)
		}
	}
	return nil
}

// makeBatch makes a token for each site, a few at one moment. When one cannot be made, those that were expire
// unseen.
func (f *Feature) makeBatch(ctx context.Context, sites []enroll.TokenSite, ttl time.Duration) (enroll.TokensAnswer, error) {
	answer := enroll.TokensAnswer{Tokens: make([]string, len(sites))}
	failed := make([]error, len(sites))
	slots := make(chan struct{}, batchAtOneTime)
	var wg sync.WaitGroup
	for i, s := range sites {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			token, err := f.desk.NewToken(ctx, s.Name, s.Fingerprint, f.urls(), ttl)
			if failed[i] = err; err == nil {
				answer.Tokens[i] = token.Text()
			}
		})
	}
	wg.Wait()
	return answer, errors.Join(failed...)
}
