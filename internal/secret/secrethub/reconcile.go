package secrethub

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/secret"
	"github.com/skerry-dev/skerry/internal/wire"
)

const sectionName = secret.SectionName

// roomForEntries is what the entries of a section may take together: a message, but for the frame.
const roomForEntries = wire.MaxMessage - 64

// pass is what one reconcile of a site has found so far.
type pass struct {
	site    fleet.SiteName
	members []secret.Sealed // without data
	old     map[types.NamespacedName]secret.Entry
	wanted  []secret.Entry // names and uses
	next    []secret.Entry
	// problems say why a Secret is not in next as it should be.
	problems map[types.NamespacedName]string
}

// Reconcile makes the section of one site what its apps need. It reads the Site, what its apps need, and
// Secrets; it writes the section "secrets".
func (f *Feature) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var site v1alpha1.Site
	if err := f.host.Client.Get(ctx, req.NamespacedName, &site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	p := &pass{site: fleet.SiteName(site.Name), problems: map[types.NamespacedName]string{}}
	uses, known := f.apps.SecretsAt(p.site)
	if !known || !site.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	f.load(p)
	p.members = members(&site)
	unsettled := p.want(uses, func(app fleet.AppKey) bool { return f.apps.Settled(p.site, app) })
	for _, want := range p.wanted {
		if len(p.members) == 0 {
			break // nobody could open anything
		}
		if err := f.seal(ctx, p, want); err != nil {
			return ctrl.Result{}, err
		}
	}
	p.fit()
	if err := f.write(ctx, p); err != nil {
		return ctrl.Result{}, err
	}
	closed := f.closedAt(p.site)
	f.watch(p.site, unsettled, len(closed) > 0)
	var needed []types.NamespacedName
	for _, e := range p.wanted {
		needed = append(needed, entryKey(e))
		if reason, ok := closed[entryKey(e).String()]; ok {
			p.problems[entryKey(e)] = "the site cannot open it: " + reason
		}
	}
	for _, key := range f.note(p.site, needed, p.problems) {
		f.tell(key)
	}
	return ctrl.Result{}, nil
}

// load reads the section that the site has. A damaged one is made anew.
func (f *Feature) load(p *pass) {
	p.old = map[types.NamespacedName]secret.Entry{}
	body := f.host.Desired.Section(p.site, sectionName)
	if body == nil {
		return
	}
	section, err := secret.DecodeSection(body)
	if err != nil {
		f.host.Log.Error("a stored section is damaged and is made anew", "site", p.site, "section", sectionName, "error", err)
		return
	}
	for _, e := range section.Secrets {
		p.old[entryKey(e)] = e
	}
}

// members returns whom secrets of the site are sealed to, in order.
func members(site *v1alpha1.Site) []secret.Sealed {
	var out []secret.Sealed
	for _, m := range site.Status.Members {
		if !hub.Revoked(site, m.ID) {
			out = append(out, secret.Sealed{Member: fleet.MemberID(m.ID), Key: m.SealKey})
		}
	}
	slices.SortFunc(out, func(a, b secret.Sealed) int { return strings.Compare(string(a.Member), string(b.Member)) })
	return out
}

// want joins what apps need by Secret. What an earlier release of an app needed stays while the site may
// still run that release; unsettled says that something does.
func (p *pass) want(uses []hub.SecretUse, settled func(fleet.AppKey) bool) (unsettled bool) {
	byKey := map[types.NamespacedName]map[string]secret.Use{}
	add := func(key types.NamespacedName, use secret.Use) {
		if byKey[key] == nil {
			byKey[key] = map[string]secret.Use{}
		}
		byKey[key][use.App] = use
	}
	for _, use := range uses {
		add(secretKey(use), secret.Use{App: use.App.Name, Keys: use.Keys, Optional: use.Optional})
	}
	for key, e := range p.old {
		for _, use := range e.Uses {
			if settled(fleet.AppKey{Namespace: key.Namespace, Name: use.App}) {
				continue
			}
			unsettled = true
			if now, ok := byKey[key][use.App]; ok {
				use = joined(now, use)
			}
			add(key, use)
		}
	}
	for key, uses := range byKey {
		e := secret.Entry{Namespace: key.Namespace, Name: key.Name}
		for _, app := range slices.Sorted(maps.Keys(uses)) {
			e.Uses = append(e.Uses, uses[app])
		}
		p.wanted = append(p.wanted, e)
	}
	slices.SortFunc(p.wanted, secret.Entry.Compare)
	return unsettled
}

// joined is what two releases of an app need together.
func joined(a, b secret.Use) secret.Use {
	out := secret.Use{App: a.App, Optional: a.Optional && b.Optional}
	if len(a.Keys) > 0 && len(b.Keys) > 0 {
		out.Keys = append(slices.Clone(a.Keys), b.Keys...)
		slices.Sort(out.Keys)
		out.Keys = slices.Compact(out.Keys)
	}
	return out
}

// seal puts what is wanted of one Secret into the next section: as it was sealed before when nothing that
// matters changed, else sealed anew. Of a Secret that is gone the site keeps what it has while an app cannot
// do without.
func (f *Feature) seal(ctx context.Context, p *pass, want secret.Entry) error {
	key := entryKey(want)
	old, had := p.old[key]
	meta, found, err := f.metadata(ctx, key)
	if err != nil {
		return err
	}
	want.UID, want.Version = old.UID, old.Version
	if found {
		want.UID, want.Version = string(meta.UID), meta.ResourceVersion
		if p.keep(had, old, want) {
			return nil
		}
		return f.sealAnew(ctx, p, want)
	}
	if had && slices.ContainsFunc(want.Uses, func(u secret.Use) bool { return !u.Optional }) {
		want.Sealed = old.Sealed
		p.next = append(p.next, want)
	}
	return nil
}

// keep takes over what was sealed before, and reports whether that was possible.
func (p *pass) keep(had bool, old, want secret.Entry) bool {
	oldKeys, oldAll := old.Keys()
	keys, all := want.Keys()
	same := had && old.UID == want.UID && old.Version == want.Version && oldAll == all && slices.Equal(oldKeys, keys) &&
		slices.EqualFunc(old.Sealed, p.members, func(a, b secret.Sealed) bool {
			return a.Member == b.Member && string(a.Key) == string(b.Key)
		})
	if same {
		want.Sealed = old.Sealed
		p.take(want)
	}
	return same
}

func (f *Feature) sealAnew(ctx context.Context, p *pass, want secret.Entry) error {
	key := entryKey(want)
	old, had := p.old[key]
	obj, found, err := f.read(ctx, key)
	if err != nil {
		return err
	}
	if !found { // gone since the cache saw it, which will say so
		if had {
			p.next = append(p.next, old)
		}
		return nil
	}
	defer wipe(obj)
	want.UID, want.Version = string(obj.UID), obj.ResourceVersion
	if p.keep(had, old, want) { // the cache is behind what was sealed
		return nil
	}
	values := map[string]fleet.SecretValue{}
	keys, all := want.Keys()
	for name, value := range obj.Data {
		if all || slices.Contains(keys, name) {
			values[name] = value
		}
	}
	if len(p.members)*secret.SealedSize(values) > wire.MaxMessage {
		p.tooLarge(key, had, old)
		return nil
	}
	for _, m := range p.members {
		// A member whose key nothing can be sealed to is listed without data: trying again would not help.
		if m.Data, err = secret.Seal(m.Key, want.Context(p.site, m.Member), values); err != nil {
			f.host.Log.Error("a secret cannot be sealed", "secret", key.String(), "error", err)
		}
		want.Sealed = append(want.Sealed, m)
		f.sealed.Inc()
	}
	p.take(want)
	return nil
}

// take puts an entry into the next section, and says so when a member cannot open it.
func (p *pass) take(e secret.Entry) {
	p.next = append(p.next, e)
	for _, s := range e.Sealed {
		if len(s.Data) == 0 {
			p.problems[entryKey(e)] = fmt.Sprintf("it cannot be sealed to member %s, whose key is none: let the machine join anew", s.Member)
		}
	}
}

func (p *pass) tooLarge(key types.NamespacedName, had bool, old secret.Entry) {
	p.problems[key] = fmt.Sprintf("the secrets of a site's apps may take %d KiB sealed, and it does not fit: name fewer keys, or smaller ones", wire.MaxMessage>>10)
	if had {
		p.next = append(p.next, old)
	}
}

// fit leaves out what makes the section larger than a message: first what the site has stays as it is, then
// what changed and what is new come in while there is room.
func (p *pass) fit() {
	proposed := p.next
	p.next = nil
	room := roomForEntries
	var more []secret.Entry
	for _, e := range proposed {
		if old, had := p.old[entryKey(e)]; had {
			room -= size(old)
		} else {
			more = append(more, e)
		}
	}
	for _, e := range proposed {
		old, had := p.old[entryKey(e)]
		if !had {
			continue
		}
		if grown := size(e) - size(old); grown <= room {
			room -= grown
			p.next = append(p.next, e)
		} else {
			p.tooLarge(entryKey(e), true, old)
		}
	}
	for _, e := range more {
		if n := size(e); n <= room {
			room -= n
			p.next = append(p.next, e)
		} else {
			p.tooLarge(entryKey(e), false, secret.Entry{})
		}
	}
}

// size is what an entry takes of a section.
func size(e secret.Entry) int {
	data, err := json.Marshal(e)
	if err != nil {
		return wire.MaxMessage // names and bytes always encode
	}
	return len(data) + 1
}

func (f *Feature) write(ctx context.Context, p *pass) error {
	if len(p.next) == 0 {
		if _, had := f.host.Desired.Manifest(p.site).Sections[sectionName]; !had {
			return nil // a site that needs none is not to hear of it by a manifest of its own
		}
		return f.host.Desired.Set(ctx, p.site, sectionName, nil)
	}
	body, err := secret.Section{Secrets: p.next}.Encode()
	if err != nil {
		return fmt.Errorf("site %s: %w", p.site, err)
	}
	return f.host.Desired.Set(ctx, p.site, sectionName, body)
}

func entryKey(e secret.Entry) types.NamespacedName {
	return types.NamespacedName{Namespace: e.Namespace, Name: e.Name}
}
