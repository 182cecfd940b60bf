package enrollhub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// How long claims are kept: one that nobody decides about, one that was denied, and one whose machine has joined.
const (
	pendingClaimLife = 7 * 24 * time.Hour
	deniedClaimLife  = 30 * 24 * time.Hour
	usedClaimLife    = 24 * time.Hour
	// seenTimeout is how long a new claim may take to show in the cache, by which the bounds are kept.
	seenTimeout = 2 * time.Second
	seenPoll    = 5 * time.Millisecond
)

const (
	codePrefix                   = "claim-"
	keyMax                       = "max"
	codeType   corev1.SecretType = "skerry.dev/claim-code"
)

// siteClaims keeps claims in SiteClaims, and their codes in Secrets of the hub's namespace, by their hash. With more
// than one hub a queue may grow beyond its bound by one claim a hub.
type siteClaims struct {
	// cached answers the common case; fresh is asked when cached does not know.
	cached, fresh client.Reader
	writer        client.Client

	// queue is held while a claim is made, so that two at one moment do not count the same.
	queue sync.Mutex
}

var _ Claims = (*siteClaims)(nil)

// Code implements Claims.
func (s *siteClaims) Code(ctx context.Context, id string) (CodeRecord, error) {
	var secret corev1.Secret
	err := s.fresh.Get(ctx, client.ObjectKey{Namespace: hub.SystemNamespace, Name: codePrefix + id}, &secret)
	if apierrors.IsNotFound(err) || err == nil && secret.Type != codeType {
		return CodeRecord{}, fmt.Errorf("claim code %s: %w", id, ErrUnknown)
	}
	if err != nil {
		return CodeRecord{}, fmt.Errorf("read claim code %s: %w", id, err)
	}
	return codeOf(&secret, id)
}

func codeOf(secret *corev1.Secret, id string) (CodeRecord, error) {
	c := CodeRecord{ID: id}
	hash, err := hex.DecodeString(string(secret.Data[keyHash]))
	if err == nil && len(hash) != sha256.Size {
		err = fmt.Errorf("hash has %d bytes", len(hash))
	}
	if err == nil {
		c.Hash = [sha256.Size]byte(hash)
		c.Expires, err = time.Parse(time.RFC3339, string(secret.Data[keyExpires]))
	}
	if err == nil {
		c.Max, err = strconv.Atoi(string(secret.Data[keyMax]))
	}
	if err != nil {
		return CodeRecord{}, fmt.Errorf("secret %s/%s is no claim code: %w: delete it", secret.Namespace, secret.Name, err)
	}
	return c, nil
}

// createCode stores a new claim code.
func (s *siteClaims) createCode(ctx context.Context, c CodeRecord) error {
	return s.writer.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: hub.SystemNamespace, Name: codePrefix + c.ID},
		Type:       codeType,
		Data: map[string][]byte{
			keyHash:    []byte(hex.EncodeToString(c.Hash[:])),
			keyExpires: []byte(c.Expires.UTC().Format(time.RFC3339)), keyMax: []byte(strconv.Itoa(c.Max)),
		},
	})
}

// Claim implements Claims.
func (s *siteClaims) Claim(ctx context.Context, name string) (Claim, error) {
	for _, from := range []client.Reader{s.cached, s.fresh} {
		var obj v1alpha1.SiteClaim
		err := from.Get(ctx, client.ObjectKey{Name: name}, &obj)
		if err == nil {
			return claimOf(&obj)
		}
		if !apierrors.IsNotFound(err) {
			return Claim{}, fmt.Errorf("read claim %s: %w", name, err)
		}
	}
	return Claim{}, fmt.Errorf("claim %s: %w", name, ErrUnknown)
}

func claimOf(obj *v1alpha1.SiteClaim) (Claim, error) {
	r := obj.Spec.Request
	key, err := hex.DecodeString(r.PublicKey)
	if err != nil {
		return Claim{}, fmt.Errorf("claim %s: spec.request.publicKey: %w: delete it", obj.Name, err)
	}
	c := Claim{
		Name: obj.Name, Code: r.Code, Key: key, Fingerprint: r.Fingerprint, Hostname: r.Hostname, Arch: r.Arch, Version: r.Version,
		From: r.From, Decision: obj.Spec.Decision, Site: fleet.SiteName(obj.Spec.Site), Replace: obj.Spec.Replace,
		Member: fleet.MemberID(obj.Status.Member), Record: obj.ResourceVersion,
	}
	if obj.Status.AdmittedAt != nil {
		c.Admitted = obj.Status.AdmittedAt.Time
	}
	return c, nil
}

// Enqueue implements Claims.
func (s *siteClaims) Enqueue(ctx context.Context, c Claim, code CodeRecord) (Claim, error) {
	s.queue.Lock()
	defer s.queue.Unlock()
	var list v1alpha1.SiteClaimList
	if err := s.cached.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return Claim{}, fmt.Errorf("list claims: %w", err)
	}
	ofCode := 0
	for i := range list.Items {
		if list.Items[i].Spec.Request.Code == code.ID {
			ofCode++
		}
	}
	if ofCode >= code.Max || len(list.Items) >= enroll.MaxClaims {
		return Claim{}, fmt.Errorf("%d claims with code %s, of %d, and %d in all, of %d: %w", ofCode, code.ID, code.Max, len(list.Items), enroll.MaxClaims, ErrFull)
	}
	site, err := s.match(ctx, c, &list)
	if err != nil {
		return Claim{}, err
	}
	obj := &v1alpha1.SiteClaim{
		ObjectMeta: metav1.ObjectMeta{Name: c.Name, Labels: map[string]string{v1alpha1.LabelClaimCode: code.ID}},
		Spec: v1alpha1.SiteClaimSpec{Decision: v1alpha1.ClaimPending, Request: v1alpha1.SiteClaimRequest{
			Code: code.ID, PublicKey: hex.EncodeToString(c.Key), Fingerprint: c.Fingerprint, Hostname: c.Hostname, Arch: c.Arch, Version: c.Version, From: c.From,
		}},
	}
	if site != "" {
		obj.Spec.Decision, obj.Spec.Site = v1alpha1.ClaimApproved, site
	}
	if err := s.writer.Create(ctx, obj); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return Claim{}, fmt.Errorf("make claim %s: %w: %w", c.Name, ErrChanged, err)
		}
		return Claim{}, fmt.Errorf("make claim %s: %w", c.Name, err)
	}
	s.awaitSeen(ctx, c.Name)
	return claimOf(obj)
}

// awaitSeen returns when the cache shows a claim, or does not within seenTimeout: the next one then counts one too few.
func (s *siteClaims) awaitSeen(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	tick := time.NewTicker(seenPoll)
	defer tick.Stop()
	for s.cached.Get(ctx, client.ObjectKey{Name: name}, &v1alpha1.SiteClaim{}) != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Match implements Claims.
func (s *siteClaims) Match(ctx context.Context, c Claim) (Claim, error) {
	var list v1alpha1.SiteClaimList
	if err := s.cached.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return Claim{}, fmt.Errorf("list claims: %w", err)
	}
	site, err := s.match(ctx, c, &list)
	if err != nil || site == "" {
		return c, err
	}
	var obj v1alpha1.SiteClaim
	if err := s.fresh.Get(ctx, client.ObjectKey{Name: c.Name}, &obj); err != nil {
		return Claim{}, fmt.Errorf("read claim %s: %w", c.Name, err)
	}
	if obj.ResourceVersion != c.Record {
		return Claim{}, fmt.Errorf("claim %s: %w", c.Name, ErrChanged)
	}
	obj.Spec.Decision, obj.Spec.Site = v1alpha1.ClaimApproved, site
	if err := s.writer.Update(ctx, &obj); err != nil {
		return Claim{}, fmt.Errorf("approve claim %s: %w", c.Name, changed(err))
	}
	return claimOf(&obj)
}

// match returns the one site that names the machine of a claim and has none yet; empty when there is no such site, or
// another claim is of a machine that says the same of itself: then a person has to look.
func (s *siteClaims) match(ctx context.Context, c Claim, claims *v1alpha1.SiteClaimList) (string, error) {
	if c.Fingerprint == "" {
		return "", nil
	}
	for i := range claims.Items {
		if other := &claims.Items[i]; other.Name != c.Name && other.Spec.Request.Fingerprint == c.Fingerprint {
			return "", nil
		}
	}
	var sites v1alpha1.SiteList
	if err := s.cached.List(ctx, &sites, client.UnsafeDisableDeepCopy); err != nil {
		return "", fmt.Errorf("list sites: %w", err)
	}
	found := ""
	for i := range sites.Items {
		site := &sites.Items[i]
		if site.Spec.Fingerprint != c.Fingerprint {
			continue
		}
		if found != "" || !site.DeletionTimestamp.IsZero() || seatOf(site).Taken != "" {
			return "", nil
		}
		found = site.Name
	}
	return found, nil
}

// Use implements Claims.
func (s *siteClaims) Use(ctx context.Context, c Claim) error {
	var obj v1alpha1.SiteClaim
	if err := s.fresh.Get(ctx, client.ObjectKey{Name: c.Name}, &obj); err != nil {
		return fmt.Errorf("read claim %s: %w", c.Name, err)
	}
	if obj.ResourceVersion != c.Record {
		return fmt.Errorf("claim %s: %w", c.Name, ErrChanged)
	}
	at := metav1.NewTime(c.Admitted)
	obj.Status.Member, obj.Status.AdmittedAt = string(c.Member), &at
	if err := s.writer.Status().Update(ctx, &obj); err != nil {
		return fmt.Errorf("use claim %s: %w", c.Name, changed(err))
	}
	return nil
}

// sweep removes claims that nobody needs any more, and codes a week after they ended.
func (s *siteClaims) sweep(ctx context.Context, now time.Time) error {
	var claims v1alpha1.SiteClaimList
	if err := s.fresh.List(ctx, &claims); err != nil {
		return fmt.Errorf("list claims: %w", err)
	}
	for i := range claims.Items {
		if c := &claims.Items[i]; claimEnded(c, now) {
			// One that is decided at this moment stays.
			err := s.writer.Delete(ctx, c, client.Preconditions{UID: &c.UID, ResourceVersion: &c.ResourceVersion})
			if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
				return fmt.Errorf("delete claim %s: %w", c.Name, err)
			}
		}
	}
	var codes corev1.SecretList
	err := s.fresh.List(ctx, &codes, client.InNamespace(hub.SystemNamespace), client.MatchingFields{"type": string(codeType)})
	if err != nil {
		return fmt.Errorf("list claim codes: %w", err)
	}
	for i := range codes.Items {
		secret := &codes.Items[i]
		if c, err := codeOf(secret, secret.Name); err == nil && now.Before(c.Expires.Add(maxTokenTTL)) {
			continue
		}
		if err := s.writer.Delete(ctx, secret, client.Preconditions{UID: &secret.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete claim code %s: %w", secret.Name, err)
		}
	}
	return nil
}

func claimEnded(c *v1alpha1.SiteClaim, now time.Time) bool {
	switch {
	case c.Status.AdmittedAt != nil:
		return now.Sub(c.Status.AdmittedAt.Time) > usedClaimLife
	case c.Spec.Decision == v1alpha1.ClaimApproved:
		return false // its machine will come
	case c.Spec.Decision == v1alpha1.ClaimDenied:
		return now.Sub(c.CreationTimestamp.Time) > deniedClaimLife
	}
	return now.Sub(c.CreationTimestamp.Time) > pendingClaimLife
}
