package apphub

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// Secrets knows which Secrets are there, and brings them to sites.
type Secrets interface {
	// Missing says which Secret or key of uses is not there although it is not optional, with the next step;
	// empty when all are.
	Missing(ctx context.Context, uses []hub.SecretUse) (string, error)
	// Undelivered says why a Secret of uses did not reach a site that needs it; empty when all did.
	Undelivered(uses []hub.SecretUse) string
	// OnChange registers fn to be called with each Secret that uses named, after an answer about it changed.
	// fn must not block. Only before the hub starts.
	OnChange(fn func(namespace, name string))
}

// UseSecrets hands in what knows of Secrets. Without it, every Secret counts as there. Only before Setup.
func (f *Feature) UseSecrets(s Secrets) { f.secrets = s }

// noSecrets stands for no feature of secrets.
type noSecrets struct{}

func (noSecrets) Missing(context.Context, []hub.SecretUse) (string, error) { return "", nil }
func (noSecrets) Undelivered([]hub.SecretUse) string                       { return "" }
func (noSecrets) OnChange(func(namespace, name string))                    {}

// OnTold registers fn to be called with each site after what it is told of its apps changed. fn must not
// block. Only before the hub starts.
func (f *Feature) OnTold(fn func(fleet.SiteName)) { f.told = append(f.told, fn) }

func (f *Feature) tellTold(site fleet.SiteName) {
	for _, fn := range f.told {
		fn(site)
	}
}

// SecretsAt returns what the apps that site is told to run need of Secrets. known is false while the site's
// section of apps was lost and is not made anew yet: it is then not to be told of anything else either.
func (f *Feature) SecretsAt(site fleet.SiteName) (uses []hub.SecretUse, known bool) {
	if f.book.isLost(site) {
		return nil, false
	}
	for _, p := range f.book.placementsAt(site) {
		uses = append(uses, usesOf(p.App, p.Secrets)...)
	}
	return uses, true
}

// Settled reports whether site runs what it was told of the app, or was told nothing of it.
func (f *Feature) Settled(site fleet.SiteName, key fleet.AppKey) bool {
	told := f.book.told(site, key).Digest
	return told == "" || slices.ContainsFunc(siteApps(f.host.Fleet, site), func(r app.AppReport) bool {
		return r.App == key && r.Running.Digest == told
	})
}

func usesOf(key fleet.AppKey, refs []app.SecretRef) []hub.SecretUse {
	var uses []hub.SecretUse
	for _, ref := range refs {
		uses = append(uses, hub.SecretUse{App: key, Name: ref.Name, Keys: ref.Keys(), Optional: ref.Optional})
	}
	return uses
}

func (p *pass) secretUses() []hub.SecretUse {
	return usesOf(p.key, appapi.SecretRefs(p.app.Spec.SecretRefs))
}

// checkSecrets refuses references that get in each other's way, which the schema cannot say.
func (f *Feature) checkSecrets(_ context.Context, _, a *v1alpha1.App) ([]string, field.ErrorList) {
	if i, err := badSecretRef(a); err != nil {
		path := field.NewPath("spec", "secretRefs").Index(i)
		return nil, field.ErrorList{field.Invalid(path, a.Spec.SecretRefs[min(i, len(a.Spec.SecretRefs)-1)].Name, err.Error())}
	}
	return nil, nil
}

func badSecretRef(a *v1alpha1.App) (int, error) {
	env := map[string]string{}
	for name := range a.Spec.Env {
		env[name] = ""
	}
	return app.BadSecretRef(appapi.SecretRefs(a.Spec.SecretRefs), env)
}

// needs checks the app's references to Secrets, and looks whether all are there.
func (r *reconciler) needs(ctx context.Context, p *pass) error {
	if i, err := badSecretRef(p.app); err != nil {
		return &problem{v1alpha1.ReasonSecretsInvalid, fmt.Sprintf("secretRefs[%d]: %v", i, err), 0}
	}
	missing, err := r.secrets.Missing(ctx, p.secretUses())
	if err != nil {
		return fmt.Errorf("app %s: %w", p.key, err)
	}
	p.missing = missing
	return nil
}

// lacks says that sites wait for a Secret, or cannot be given one.
func (r *reconciler) lacks(_ context.Context, p *pass) error {
	outdated := func(s app.SiteState) bool { return s.Told != s.Target }
	if p.missing != "" && slices.ContainsFunc(p.states, outdated) {
		return &problem{v1alpha1.ReasonSecretNotFound, "secretRefs: " + p.missing, 0}
	}
	if reason := r.secrets.Undelivered(p.secretUses()); reason != "" {
		return &problem{v1alpha1.ReasonSecretsUndelivered, "secretRefs: " + reason, 0}
	}
	return nil
}

// setSecretMissing keeps the condition while a Secret or a key is not there. Sites that have an earlier copy
// go on with it, so that the app may well be Ready.
func setSecretMissing(conditions *[]metav1.Condition, p *pass) {
	if p.missing == "" {
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionSecretMissing)
		return
	}
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: v1alpha1.ConditionSecretMissing, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSecretNotFound,
		Message: "secretRefs: " + p.missing, ObservedGeneration: p.app.Generation,
	})
}

// appsOfSecret returns the apps that name a Secret of their namespace.
func (r *reconciler) appsOfSecret(ctx context.Context, key types.NamespacedName) []reconcile.Request {
	return r.appsWhere(ctx, func(a *v1alpha1.App) bool {
		return slices.ContainsFunc(a.Spec.SecretRefs, func(ref v1alpha1.SecretRef) bool { return ref.Name == key.Name })
	}, client.InNamespace(key.Namespace))
}
