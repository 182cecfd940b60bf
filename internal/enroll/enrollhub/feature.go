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

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// Life of join tokens.
const (
	defaultTokenTTL = 30 * time.Minute
	maxTokenTTL     = 7 * 24 * time.Hour
	sweepEvery      = time.Hour
)

// FeatureOptions are what cmd hands to the feature.
type FeatureOptions struct {
	Issuer    Issuer
	Authority *Authority
	// Gateways, BusURLs and TTL are those of Options.
	Gateways *GatewayAuthority
	BusURLs  []string
	TTL      time.Duration
	// OtherURLs are where sites reach the hub's port too, tried after its own.
	OtherURLs []string
}

// Feature is enrolment as a feature of the hub.
//
// It reads and writes Site.status.members, authorities and authority, Site.spec.revokedMembers, SiteClaims, and the Secrets of join tokens and
// claim codes.
type Feature struct {
	o    FeatureOptions
	host *hub.Host
	desk *Desk
	// ctx ends with the hub.
	ctx      context.Context
	rotation *rotation
}

var _ hub.Feature = (*Feature)(nil)

// NewFeature returns the feature; nothing works before Setup.
func NewFeature(o FeatureOptions) *Feature { return &Feature{o: o} }

// Name implements hub.Feature.
func (f *Feature) Name() string { return "enroll" }

// Setup implements hub.Feature.
func (f *Feature) Setup(ctx context.Context, h *hub.Host) error {
	fresh := h.Manager.GetAPIReader()
	tokens := &secretTokens{fresh: fresh, writer: h.Client}
	claims := &siteClaims{cached: h.Client, fresh: fresh, writer: h.Client}
	desk, err := NewDesk(Options{
		Issuer: f.o.Issuer, Authority: f.o.Authority, Gateways: f.o.Gateways, BusURLs: f.o.BusURLs, HubURLs: append([]string{h.URL}, f.o.OtherURLs...), TTL: f.o.TTL,
		Members: &siteMembers{cached: h.Client, fresh: fresh, writer: h.Client}, Tokens: tokens, Claims: claims,
		Log: h.Log.With("component", "enroll"), Now: h.Now,
	})
	if err != nil {
		return err
	}
	f.host, f.desk, f.ctx, f.rotation = h, desk, ctx, &rotation{f: f}
	if err := f.register(h.Metrics); err != nil {
		return err
	}
	desk.Register(h.Public)
	h.Public.HandleFunc("POST "+enroll.PathToken, f.token)
	h.Public.HandleFunc("POST "+enroll.PathTokens, f.tokens)
	h.Public.HandleFunc("POST "+enroll.PathClaimCodes, func(w http.ResponseWriter, r *http.Request) { f.claimCode(w, r, claims) })
	h.Public.HandleFunc("GET "+enroll.PathAuthorities, f.rotation.authorities)
	h.Public.HandleFunc("POST "+enroll.PathAuthorities, f.rotation.step)
	h.OnSiteGone(f.siteGone)
	err = ctrl.NewControllerManagedBy(h.Manager).Named("revocation").For(&v1alpha1.Site{}).Complete(f)
	if err != nil {
		return fmt.Errorf("set up revocation controller: %w", err)
	}
	changes := hub.NewNotifier()
	h.Fleet.OnChange(changes.NotifySite)
	err = ctrl.NewControllerManagedBy(h.Manager).Named("trust").For(&v1alpha1.Site{}).WatchesRawSource(changes.Source()).
		WithOptions(controller.Options{MaxConcurrentReconciles: hub.StatusWriters}).
		Complete(trustStatus{f})
	if err != nil {
		return fmt.Errorf("set up trust controller: %w", err)
	}
	return h.Manager.Add(manager.RunnableFunc(func(ctx context.Context) error {
		defer f.rotation.nudges.Wait()
		return f.sweep(ctx, tokens, claims)
	}))
}

// Member returns which member made a request; see Desk.Member. Before Setup nobody is a member.
func (f *Feature) Member(r *http.Request) (fleet.SiteName, fleet.MemberID, error) {
	if f.desk == nil {
		return "", "", fmt.Errorf("the hub is starting: %w", ErrNoMember)
	}
	return f.desk.Member(r)
}

// urls are the hub's addresses in a token, the first tried first.
func (f *Feature) urls() []string { return append([]string{f.host.URL}, f.o.OtherURLs...) }

// Reconcile cuts off the members that a Site says are revoked. It is idempotent, and runs for every Site
// at the start, so that a bus which forgot learns again.
func (f *Feature) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var site v1alpha1.Site
	if err := f.host.Client.Get(ctx, req.NamespacedName, &site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	var gone []Member
	for _, m := range site.Status.Members {
		if hub.Revoked(&site, m.ID) {
			gone = append(gone, memberOf(&site, m))
		}
	}
	err := f.desk.Revoke(gone...)
	for _, m := range gone {
		// What a member that was replaced said last must not stand in for the new one.
		err = errors.Join(err, f.host.Fleet.ForgetMember(ctx, m.Site, m.ID))
	}
	return ctrl.Result{}, err
}

// siteGone cuts off every member of a site whose object goes.
func (f *Feature) siteGone(_ context.Context, site *v1alpha1.Site) error {
	var all []Member
	for _, m := range site.Status.Members {
		all = append(all, memberOf(site, m))
	}
	return f.desk.Revoke(all...)
}

// token serves enroll.PathToken.
func (f *Feature) token(w http.ResponseWriter, r *http.Request) {
	name := fleet.SiteName(r.PathValue("site"))
	if err := name.Validate(); err != nil {
		hub.Fail(w, fmt.Errorf("%w: %w", err, hub.ErrBadRequest))
		return
	}
	right := hub.Right{Verb: "create", Resource: "sites", Subresource: "token", Name: string(name)}
	if _, err := f.host.People.Check(r, right); err != nil {
		hub.Fail(w, err)
		return
	}
	ttl, err := readTTL(w, r)
	if err != nil {
		hub.Fail(w, fmt.Errorf("%w: %w", err, hub.ErrBadRequest))
		return
	}
	var site v1alpha1.Site
	err = f.host.Manager.GetAPIReader().Get(r.Context(), client.ObjectKey{Name: string(name)}, &site)
	if client.IgnoreNotFound(err) != nil {
		hub.Fail(w, fmt.Errorf("read site %q: %w", name, err))
		return
	}
	if err != nil || !site.DeletionTimestamp.IsZero() {
		hub.Fail(w, fmt.Errorf("site %q: make it first: %w", name, hub.ErrNotFound))
		return
	}
	token, err := f.desk.NewToken(r.Context(), name, "", f.urls(), ttl)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	hub.Answer(w, http.StatusCreated, enroll.TokenAnswer{Token: token.Text()})
}

func readTTL(w http.ResponseWriter, r *http.Request) (time.Duration, error) {
	var request enroll.TokenRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return 0, fmt.Errorf("read request: %w", err)
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &request); err != nil {
			return 0, fmt.Errorf("read request: %w", err)
		}
	}
	return checkTTL(request.TTLSeconds)
}

// checkTTL returns for how long a token is to hold.
func checkTTL(seconds int) (time.Duration, error) {
	if limit := int(maxTokenTTL.Seconds()); seconds < 0 || seconds > limit {
		return 0, fmt.Errorf("ttlSeconds is %d, want 0 to %d", seconds, limit)
	}
	if seconds == 0 {
		return defaultTokenTTL, nil
	}
	return time.Duration(seconds) * time.Second, nil
}

// maxCodeTTL is the longest that a claim code holds, minCodeTTL the shortest.
const (
	maxCodeTTL = 366 * 24 * time.Hour
	minCodeTTL = time.Minute
)

// claimCode serves enroll.PathClaimCodes.
func (f *Feature) claimCode(w http.ResponseWriter, r *http.Request, claims *siteClaims) {
	right := hub.Right{Verb: "create", Resource: "siteclaims", Subresource: "code"}
	if _, err := f.host.People.Check(r, right); err != nil {
		hub.Fail(w, err)
		return
	}
	var request enroll.ClaimCodeRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if request.Max == 0 {
		request.Max = enroll.DefaultClaims
	}
	switch {
	case err != nil:
		err = fmt.Errorf("read request: %w", err)
	case request.TTLSeconds < int(minCodeTTL.Seconds()) || request.TTLSeconds > int(maxCodeTTL.Seconds()):
		err = fmt.Errorf("ttlSeconds is %d, want %d to %d", request.TTLSeconds, int(minCodeTTL.Seconds()), int(maxCodeTTL.Seconds()))
	case request.Max < 1 || request.Max > enroll.MaxClaims:
		err = fmt.Errorf("max is %d, want 1 to %d", request.Max, enroll.MaxClaims)
	}
	if err != nil {
		hub.Fail(w, fmt.Errorf("%w: %w", err, hub.ErrBadRequest))
		return
	}
	code, err := f.desk.NewClaimCode(r.Context(), claims.createCode, f.urls(), time.Duration(request.TTLSeconds)*time.Second, request.Max)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	hub.Answer(w, http.StatusCreated, enroll.ClaimCodeAnswer{ID: code.Token.ID, Code: code.Text()})
}

// sweep removes tokens some time after they expired, so that who comes late is told why.
func (f *Feature) sweep(ctx context.Context, tokens Tokens, claims *siteClaims) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := errors.Join(tokens.Sweep(ctx, f.host.Now().Add(-maxTokenTTL)), claims.sweep(ctx, f.host.Now()))
		if err != nil && ctx.Err() == nil {
			f.host.Log.Warn("sweep join tokens and claims", "error", err)
		}
	}
}

// maxCutOff bounds the members of whom is remembered that their revocation was told.
const maxCutOff = 16 << 10

// cutOff remembers whose revocation this process told in its log, since it is put in force again and again.
// Beyond its bound, and after a start, it is told once more. It is safe for concurrent use.
type cutOff struct {
	mu   sync.Mutex
	told map[cutMember]struct{}
}

type cutMember struct {
	site   fleet.SiteName
	member fleet.MemberID
}

func newCutOff() *cutOff { return &cutOff{told: map[cutMember]struct{}{}} }

// first reports whether the member was not told of before.
func (c *cutOff) first(m Member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := cutMember{m.Site, m.ID}
	if _, ok := c.told[key]; ok {
		return false
	}
	if len(c.told) >= maxCutOff {
		clear(c.told)
	}
	c.told[key] = struct{}{}
	return true
}
