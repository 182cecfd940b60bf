package enrollhub

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// records keeps members in Site objects and join tokens in Secrets: Members and Tokens over the
// Kubernetes API, whose optimistic concurrency makes a token single-use for more than one hub.
type records struct {
	client client.Client
	// direct reads past the cache.
	direct client.Reader
}

// maxPast is how many revoked members a Site remembers: they are there for people to see; one that is
// forgotten is refused as unknown.
const maxPast = 16

// Member implements Members. It reads from the cache: a revocation takes effect within its delay.
func (r *records) Member(ctx context.Context, site fleet.SiteName, id fleet.MemberID) (Member, error) {
	m, err := memberIn(ctx, r.client, site, id)
	if errors.Is(err, ErrUnknown) {
		// A member that was admitted a moment ago is not in the cache yet.
		return memberIn(ctx, r.direct, site, id)
	}
	return m, err
}

func memberIn(ctx context.Context, c client.Reader, site fleet.SiteName, id fleet.MemberID) (Member, error) {
	s, err := getSite(ctx, c, site)
	if err != nil {
		return Member{}, err
	}
	for _, m := range membersOf(s) {
		if m.ID == id {
			return m, nil
		}
	}
	return Member{}, fmt.Errorf("member %q of site %q: %w", id, site, ErrUnknown)
}

func getSite(ctx context.Context, c client.Reader, name fleet.SiteName) (*v1alpha1.Site, error) {
	var s v1alpha1.Site
	err := c.Get(ctx, client.ObjectKey{Name: string(name)}, &s)
	switch {
	case apierrors.IsNotFound(err), err == nil && !s.DeletionTimestamp.IsZero():
		return nil, fmt.Errorf("site %q: %w", name, ErrUnknown)
	case err != nil:
		return nil, fmt.Errorf("read site %q: %w", name, err)
	}
	return &s, nil
}

func membersOf(s *v1alpha1.Site) []Member {
	out := make([]Member, 0, len(s.Status.Members))
	for _, m := range s.Status.Members {
		if len(m.PublicKey) != ed25519.PublicKeySize {
			continue // written by hand; no machine can have this key
		}
		out = append(out, Member{
			Site: fleet.SiteName(s.Name), ID: fleet.MemberID(m.ID), Key: m.PublicKey, SealKey: m.SealKey,
			Enrolled: m.EnrolledAt.Time, Revoked: hub.Revoked(s, m.ID),
		})
	}
	return out
}

// Admit implements Members. The others are revoked before the new one is written: between the two a site
// has no member rather than two.
func (r *records) Admit(ctx context.Context, m Member) ([]Member, error) {
	s, err := getSite(ctx, r.direct, m.Site)
	if err != nil {
		return nil, err
	}
	var replaced []Member
	for _, old := range membersOf(s) {
		if old.ID == m.ID {
			return nil, nil
		}
		if !old.Revoked {
			replaced = append(replaced, old)
			s.Spec.RevokedMembers = append(s.Spec.RevokedMembers, string(old.ID))
		}
	}
	members := append(slices.Clone(s.Status.Members), v1alpha1.SiteMember{
		ID: string(m.ID), PublicKey: m.Key, SealKey: m.SealKey, EnrolledAt: metav1.NewTime(m.Enrolled),
	})
	if drop := len(members) - maxPast - 1; drop > 0 {
		for _, gone := range members[:drop] {
			s.Spec.RevokedMembers = slices.DeleteFunc(s.Spec.RevokedMembers, func(id string) bool { return id == gone.ID })
		}
		members = members[drop:]
	}
	if err := r.client.Update(ctx, s); err != nil {
		return nil, changed(fmt.Errorf("revoke members of site %q: %w", m.Site, err))
	}
	s.Status.Members = members
	if err := r.client.Status().Update(ctx, s); err != nil {
		return nil, changed(fmt.Errorf("write member of site %q: %w", m.Site, err))
	}
	return replaced, nil
}

// changed marks a conflict as one that is worth another try.
func changed(err error) error {
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%w: %w", err, ErrChanged)
	}
	return err
}

// Join tokens are Secrets of this type, labelled for sweeping.
const (
	tokenType   = "skerry.dev/join-token"
	tokenLabel  = "skerry.dev/join-token"
	tokenObject = "join-"
)

// Keys of a token's Secret. The secret of the token itself is nowhere: only its hash.
const (
	tokenHash    = "hash"
	tokenSite    = "site"
	tokenExpires = "expires"
	tokenUsedBy  = "usedBy"
	tokenUsedAt  = "usedAt"
	tokenMember  = "member"
)

// Token implements Tokens.
func (r *records) Token(ctx context.Context, id string) (TokenRecord, error) {
	var s corev1.Secret
	err := r.direct.Get(ctx, client.ObjectKey{Namespace: hub.SystemNamespace, Name: tokenObject + id}, &s)
	if apierrors.IsNotFound(err) || err == nil && s.Type != tokenType {
		return TokenRecord{}, fmt.Errorf("join token %q: %w", id, ErrUnknown)
	}
	if err != nil {
		return TokenRecord{}, fmt.Errorf("read join token %q: %w", id, err)
	}
	return tokenFrom(id, &s)
}

func tokenFrom(id string, s *corev1.Secret) (TokenRecord, error) {
	t := TokenRecord{
		ID: id, Site: fleet.SiteName(s.Data[tokenSite]), Member: fleet.MemberID(s.Data[tokenMember]),
		UsedBy: s.Data[tokenUsedBy], Version: s.ResourceVersion,
	}
	expires, err := strconv.ParseInt(string(s.Data[tokenExpires]), 10, 64)
	if err != nil || len(s.Data[tokenHash]) != len(t.Hash) {
		return TokenRecord{}, fmt.Errorf("join token %q: its Secret was changed by hand: %w", id, ErrUnknown)
	}
	t.Hash, t.Expires = [len(t.Hash)]byte(s.Data[tokenHash]), time.Unix(expires, 0)
	if len(t.UsedBy) > 0 {
		used, err := strconv.ParseInt(string(s.Data[tokenUsedAt]), 10, 64)
		if err != nil {
			return TokenRecord{}, fmt.Errorf("join token %q: its Secret was changed by hand: %w", id, ErrUnknown)
		}
		t.UsedAt = time.Unix(used, 0)
	}
	return t, nil
}

func secretOf(t TokenRecord) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: hub.SystemNamespace, Name: tokenObject + t.ID, ResourceVersion: t.Version,
			Labels: map[string]string{tokenLabel: "true"},
		},
		Type: tokenType,
		Data: map[string][]byte{
			tokenHash:    t.Hash[:],
			tokenSite:    []byte(t.Site),
			tokenExpires: []byte(strconv.FormatInt(t.Expires.Unix(), 10)),
		},
	}
	if len(t.UsedBy) > 0 {
		s.Data[tokenUsedBy] = t.UsedBy
		s.Data[tokenUsedAt] = []byte(strconv.FormatInt(t.UsedAt.Unix(), 10))
		s.Data[tokenMember] = []byte(t.Member)
	}
	return s
}

// Create implements Tokens.
func (r *records) Create(ctx context.Context, t TokenRecord) error {
	if err := r.client.Create(ctx, secretOf(t)); err != nil {
		return fmt.Errorf("store join token %q: %w", t.ID, err)
	}
	return nil
}

// Use implements Tokens.
func (r *records) Use(ctx context.Context, t TokenRecord) error {
	if err := r.client.Update(ctx, secretOf(t)); err != nil {
		return changed(fmt.Errorf("use join token %q: %w", t.ID, err))
	}
	return nil
}

// Sweep implements Tokens.
func (r *records) Sweep(ctx context.Context, before time.Time) error {
	var list corev1.SecretList
	err := r.direct.List(ctx, &list, client.InNamespace(hub.SystemNamespace), client.MatchingLabels{tokenLabel: "true"})
	if err != nil {
		return fmt.Errorf("list join tokens: %w", err)
	}
	for i := range list.Items {
		s := &list.Items[i]
		expires, err := strconv.ParseInt(string(s.Data[tokenExpires]), 10, 64)
		if err == nil && !time.Unix(expires, 0).Before(before) {
			continue
		}
		if err := client.IgnoreNotFound(r.client.Delete(ctx, s)); err != nil {
			return fmt.Errorf("remove join token %s: %w", s.Name, err)
		}
	}
	return nil
}
