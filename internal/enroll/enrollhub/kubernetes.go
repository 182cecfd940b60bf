package enrollhub

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// maxMembers is how many a Site's status holds; revoked ones go first.
const maxMembers = 64

// siteMembers keeps members in Sites: who enrolled in the status, who may not come back in the spec.
type siteMembers struct {
	// cached answers the common case; fresh is asked when cached does not know.
	cached, fresh client.Reader
	writer        client.Client
}

var _ Members = (*siteMembers)(nil)

// Member implements Members. A member that a cache does not show yet is looked for at the API itself.
func (s *siteMembers) Member(ctx context.Context, site fleet.SiteName, id fleet.MemberID) (Member, error) {
	for _, from := range []client.Reader{s.cached, s.fresh} {
		var obj v1alpha1.Site
		err := from.Get(ctx, client.ObjectKey{Name: string(site)}, &obj)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return Member{}, fmt.Errorf("read site %q: %w", site, err)
		}
		if i := memberIndex(&obj, id); i >= 0 {
			return memberOf(&obj, obj.Status.Members[i]), nil
		}
	}
	return Member{}, fmt.Errorf("site %q, member %q: %w", site, id, ErrUnknown)
}

func memberIndex(site *v1alpha1.Site, id fleet.MemberID) int {
	return slices.IndexFunc(site.Status.Members, func(m v1alpha1.SiteMember) bool { return m.ID == string(id) })
}

func memberOf(site *v1alpha1.Site, m v1alpha1.SiteMember) Member {
	return Member{
		Site: fleet.SiteName(site.Name), ID: fleet.MemberID(m.ID), Key: m.PublicKey, SealKey: m.SealKey,
		Enrolled: m.EnrolledAt.Time, Revoked: hub.Revoked(site, m.ID), Fingerprint: m.Fingerprint,
	}
}

// Admit implements Members: first it revokes the others in the spec, then it adds the member to the
// status. A crash between leaves the site without a member until the machine asks again.
func (s *siteMembers) Admit(ctx context.Context, m Member) (replaced []Member, err error) {
	var site v1alpha1.Site
	err = s.fresh.Get(ctx, client.ObjectKey{Name: string(m.Site)}, &site)
	switch {
	case apierrors.IsNotFound(err), err == nil && !site.DeletionTimestamp.IsZero():
		return nil, fmt.Errorf("site %q: %w", m.Site, ErrUnknown)
	case err != nil:
		return nil, fmt.Errorf("read site %q: %w", m.Site, err)
	case memberIndex(&site, m.ID) >= 0:
		return nil, nil
	}
	if err := checkBound(site.Spec.Fingerprint, m.Fingerprint); err != nil {
		return nil, fmt.Errorf("site %q: %w", m.Site, err)
	}
	// What was forgotten is refused as unknown: its revocation need not be remembered either.
	site.Spec.RevokedMembers = slices.DeleteFunc(site.Spec.RevokedMembers, func(id string) bool {
		return memberIndex(&site, fleet.MemberID(id)) < 0
	})
	var revoked []v1alpha1.SiteMember // before this; what watches Sites has cut them off
	for _, old := range site.Status.Members {
		if hub.Revoked(&site, old.ID) {
			revoked = append(revoked, old)
			continue
		}
		site.Spec.RevokedMembers = append(site.Spec.RevokedMembers, old.ID)
		replaced = append(replaced, memberOf(&site, old))
		replaced[len(replaced)-1].Revoked = true
	}
	status := site.Status.DeepCopy()
	if len(replaced) > 0 {
		if err := s.writer.Update(ctx, &site); err != nil {
			return nil, fmt.Errorf("revoke members of site %q: %w", m.Site, changed(err))
		}
	}
	site.Status = *status
	if len(site.Status.Members) >= maxMembers {
		site.Status.Members = slices.DeleteFunc(site.Status.Members, func(old v1alpha1.SiteMember) bool {
			return slices.ContainsFunc(revoked, func(r v1alpha1.SiteMember) bool { return r.ID == old.ID })
		})
	}
	site.Status.Members = append(site.Status.Members, v1alpha1.SiteMember{
		ID: string(m.ID), PublicKey: m.Key, SealKey: m.SealKey, EnrolledAt: metav1.NewTime(m.Enrolled), Fingerprint: m.Fingerprint,
	})
	if err := s.writer.Status().Update(ctx, &site); err != nil {
		return nil, fmt.Errorf("add member to site %q: %w", m.Site, changed(err))
	}
	return replaced, nil
}

// Seat implements Members.
func (s *siteMembers) Seat(ctx context.Context, name fleet.SiteName) (Seat, error) {
	var site v1alpha1.Site
	err := s.fresh.Get(ctx, client.ObjectKey{Name: string(name)}, &site)
	switch {
	case apierrors.IsNotFound(err), err == nil && !site.DeletionTimestamp.IsZero():
		return Seat{}, fmt.Errorf("site %q: %w", name, ErrUnknown)
	case err != nil:
		return Seat{}, fmt.Errorf("read site %q: %w", name, err)
	}
	return seatOf(&site), nil
}

func seatOf(site *v1alpha1.Site) Seat {
	s := Seat{Fingerprint: site.Spec.Fingerprint}
	for _, m := range site.Status.Members {
		if !hub.Revoked(site, m.ID) {
			s.Taken = fleet.MemberID(m.ID)
		}
	}
	return s
}

// changed names the API's refusal of an object that others changed.
func changed(err error) error {
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return err
}

// Of a token's Secret.
const (
	tokenPrefix = "join-"
	keyHash     = "hash"
	keySite     = "site"
	keyExpires  = "expires"
	keyUsedBy   = "usedBy"
	keyUsedAt   = "usedAt"
	keyMember   = "member"
	keyHardware = "fingerprint"
)

const tokenType corev1.SecretType = "skerry.dev/join-token"

// secretTokens keeps tokens in Secrets of the hub's namespace, by their hash.
type secretTokens struct {
	fresh  client.Reader
	writer client.Client
}

var _ Tokens = (*secretTokens)(nil)

// Token implements Tokens.
func (s *secretTokens) Token(ctx context.Context, id string) (TokenRecord, error) {
	// The id comes from outside; what is no name of a token must not reach the API.
	if err := fleet.MemberID(id).Validate(); err != nil {
		return TokenRecord{}, fmt.Errorf("join token: %w: %w", ErrUnknown, err)
	}
	var secret corev1.Secret
	err := s.fresh.Get(ctx, client.ObjectKey{Namespace: hub.SystemNamespace, Name: tokenPrefix + id}, &secret)
	if apierrors.IsNotFound(err) || err == nil && secret.Type != tokenType {
		return TokenRecord{}, fmt.Errorf("join token %s: %w", id, ErrUnknown)
	}
	if err != nil {
		return TokenRecord{}, fmt.Errorf("read join token %s: %w", id, err)
	}
	return recordOf(&secret, id)
}

func recordOf(secret *corev1.Secret, id string) (TokenRecord, error) {
	t := TokenRecord{
		ID: id, Site: fleet.SiteName(secret.Data[keySite]), UsedBy: ed25519.PublicKey(secret.Data[keyUsedBy]),
		Member: fleet.MemberID(secret.Data[keyMember]), Fingerprint: string(secret.Data[keyHardware]), Version: string(secret.UID) + "/" + secret.ResourceVersion,
	}
	hash, err := hex.DecodeString(string(secret.Data[keyHash]))
	if err == nil && len(hash) != sha256.Size {
		err = fmt.Errorf("hash has %d bytes", len(hash))
	}
	if err == nil {
		t.Hash = [sha256.Size]byte(hash)
		t.Expires, err = time.Parse(time.RFC3339, string(secret.Data[keyExpires]))
	}
	if used := secret.Data[keyUsedAt]; err == nil && len(used) > 0 {
		t.UsedAt, err = time.Parse(time.RFC3339, string(used))
	}
	if err != nil {
		return TokenRecord{}, fmt.Errorf("secret %s/%s is no join token: %w: delete it", secret.Namespace, secret.Name, err)
	}
	return t, nil
}

func secretOf(t TokenRecord) *corev1.Secret {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: hub.SystemNamespace, Name: tokenPrefix + t.ID},
		Type:       tokenType,
		Data: map[string][]byte{
			keyHash: []byte(hex.EncodeToString(t.Hash[:])), keySite: []byte(t.Site),
			keyExpires: []byte(t.Expires.UTC().Format(time.RFC3339)),
		},
	}
	if t.Fingerprint != "" {
		secret.Data[keyHardware] = []byte(t.Fingerprint)
	}
	if len(t.UsedBy) > 0 {
		secret.Data[keyUsedBy], secret.Data[keyMember] = t.UsedBy, []byte(t.Member)
		secret.Data[keyUsedAt] = []byte(t.UsedAt.UTC().Format(time.RFC3339))
	}
	return secret
}

// Create implements Tokens.
func (s *secretTokens) Create(ctx context.Context, t TokenRecord) error {
	return s.writer.Create(ctx, secretOf(t))
}

// Use implements Tokens.
func (s *secretTokens) Use(ctx context.Context, t TokenRecord) error {
	secret := secretOf(t)
	uid, version, _ := strings.Cut(t.Version, "/")
	secret.UID, secret.ResourceVersion = types.UID(uid), version
	err := s.writer.Update(ctx, secret)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("use join token %s: %w: %w", t.ID, ErrChanged, err)
	}
	if err != nil {
		return fmt.Errorf("use join token %s: %w", t.ID, changed(err))
	}
	return nil
}

// Sweep implements Tokens.
func (s *secretTokens) Sweep(ctx context.Context, before time.Time) error {
	var list corev1.SecretList
	err := s.fresh.List(ctx, &list, client.InNamespace(hub.SystemNamespace), client.MatchingFields{"type": string(tokenType)})
	if err != nil {
		return fmt.Errorf("list join tokens: %w", err)
	}
	for i := range list.Items {
		secret := &list.Items[i]
		t, err := recordOf(secret, secret.Name)
		if err == nil && !t.Expires.Before(before) {
			continue
		}
		// One that cannot be read lets nobody join; its name is in the log of who tries.
		if err := s.writer.Delete(ctx, secret, client.Preconditions{UID: &secret.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete join token %s: %w", secret.Name, err)
		}
	}
	return nil
}
