package enrollhub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// FeatureOptions are what the hub half of enrolment is made of.
type FeatureOptions struct {
	Issuer    Issuer
	Authority *Authority
	// URLs stand in join tokens: where the hub's port is reached.
	URLs []string
	// BusURLs are given to members when the bus is not at the hub's port.
	BusURLs []string
	Log     *slog.Logger
	// Now is the hub's clock.
	Now func() time.Time
}

// Feature is the hub half of enrolment.
type Feature struct {
	o    FeatureOptions
	desk atomic.Pointer[Desk]
	host *hub.Host
}

// New returns the feature.
func New(o FeatureOptions) *Feature { return &Feature{o: o} }

// Name implements hub.Feature.
func (f *Feature) Name() string { return "enroll" }

// How long a join token may be used when nobody says, and at most; and how often ended ones are removed.
const (
	defaultTokenTTL = 30 * time.Minute
	maxTokenTTL     = 7 * 24 * time.Hour
	sweepEvery      = time.Hour
)

// Setup implements hub.Feature.
func (f *Feature) Setup(_ context.Context, h *hub.Host) error {
	records := &records{client: h.Client, direct: h.Manager.GetAPIReader()}
	desk, err := NewDesk(Options{
		Issuer: f.o.Issuer, Authority: f.o.Authority, Members: records, Tokens: records,
		BusURLs: f.o.BusURLs, Log: f.o.Log, Now: f.o.Now,
	})
	if err != nil {
		return err
	}
	f.host = h
	f.desk.Store(desk)
	desk.Register(h.Public)
	h.Public.HandleFunc("POST "+enroll.PathToken, f.makeToken)
	h.OnSiteGone(func(_ context.Context, s *v1alpha1.Site) error { return desk.Revoke(membersOf(s)...) })
	err = h.Manager.Add(manager.RunnableFunc(func(ctx context.Context) error { return f.sweep(ctx, records) }))
	if err != nil {
		return fmt.Errorf("sweep join tokens: %w", err)
	}
	err = ctrl.NewControllerManagedBy(h.Manager).Named("site-members").For(&v1alpha1.Site{}).
		Complete(reconcile.Func(f.revoke))
	if err != nil {
		return fmt.Errorf("set up controller of members: %w", err)
	}
	return nil
}

// Member returns which member made a request on the hub's port; see Desk.Member.
func (f *Feature) Member(r *http.Request) (fleet.SiteName, fleet.MemberID, error) {
	desk := f.desk.Load()
	if desk == nil {
		return "", "", fmt.Errorf("the hub is starting: %w", ErrNoMember)
	}
	return desk.Member(r)
}

// revoke cuts off the members that a Site's spec names, and drops what they said last.
func (f *Feature) revoke(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var site v1alpha1.Site
	if err := f.host.Client.Get(ctx, req.NamespacedName, &site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	var revoked []Member
	for _, m := range membersOf(&site) {
		if m.Revoked {
			revoked = append(revoked, m)
		}
	}
	if len(revoked) == 0 {
		return ctrl.Result{}, nil
	}
	err := f.desk.Load().Revoke(revoked...)
	for _, m := range revoked {
		err = errors.Join(err, f.host.Fleet.ForgetMember(ctx, m.Site, m.ID))
	}
	return ctrl.Result{}, err
}

func (f *Feature) sweep(ctx context.Context, tokens Tokens) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := tokens.Sweep(ctx, f.o.Now().Add(-lostAnswer)); err != nil && ctx.Err() == nil {
			f.o.Log.Error("remove ended join tokens", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// makeToken answers a person who asks for a join token.
func (f *Feature) makeToken(w http.ResponseWriter, r *http.Request) {
	name := fleet.SiteName(r.PathValue("site"))
	if _, err := f.host.People.Check(r, hub.Right{Verb: "create", Resource: "sites", Subresource: "token", Name: string(name)}); err != nil {
		hub.Fail(w, err)
		return
	}
	var request enroll.TokenRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&request); err != nil {
		hub.Fail(w, fmt.Errorf("request: %w: %w", err, hub.ErrBadRequest))
		return
	}
	ttl := time.Duration(request.TTLSeconds) * time.Second
	if ttl == 0 {
		ttl = defaultTokenTTL
	}
	if ttl < 0 || ttl > maxTokenTTL {
		hub.Fail(w, fmt.Errorf("ttlSeconds: %d, want 1 to %d: %w", request.TTLSeconds, int(maxTokenTTL.Seconds()), hub.ErrBadRequest))
		return
	}
	if err := f.host.Manager.GetAPIReader().Get(r.Context(), client.ObjectKey{Name: string(name)}, &v1alpha1.Site{}); err != nil {
		if client.IgnoreNotFound(err) == nil {
			err = fmt.Errorf("site %s: %w", name, hub.ErrNotFound)
		}
		hub.Fail(w, err)
		return
	}
	token, err := f.desk.Load().NewToken(r.Context(), name, f.o.URLs, ttl)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	hub.Answer(w, http.StatusOK, enroll.TokenAnswer{Token: token.Text()})
}
