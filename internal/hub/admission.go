package hub

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"net/http"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

// Admission lets features refuse objects while people apply them: what a schema cannot say, because it
// depends on other objects. It is a courtesy, not a wall: the API server goes on without it when the hub is
// away, so that whatever must not happen is refused again where the hub acts on the object.
type Admission struct {
	// token stands in the path, so that only the API server, which reads it from the configuration, asks.
	token string
	hooks []hook
}

// hook is one feature's word on one resource.
type hook struct {
	name, resource string
	handler        http.Handler
}

func newAdmission() *Admission { return &Admission{token: rand.Text()} }

// Validate registers check for every object of a resource of group skerry.dev that is made or changed. name
// tells it from others, such as "grants". old is the zero T when the object is new. Objects that are being
// deleted are not checked. Warnings are shown to who applies the object; errors refuse it. check must answer
// within two seconds, and may be called concurrently. Only Setup may call this.
func Validate[T client.Object](h *Host, name, resource string, check func(ctx context.Context, old, new T) ([]string, field.ErrorList)) {
	webhook := admission.WithValidator(h.Client.Scheme(), validator[T]{check: check, client: h.Client})
	h.Admission.hooks = append(h.Admission.hooks, hook{name: name, resource: resource, handler: webhook})
}

// validator adapts a check to controller-runtime's three methods.
type validator[T client.Object] struct {
	check  func(ctx context.Context, old, new T) ([]string, field.ErrorList)
	client client.Client
}

// ValidateCreate implements admission.Validator.
func (v validator[T]) ValidateCreate(ctx context.Context, obj T) (admission.Warnings, error) {
	var none T
	return v.validate(ctx, none, obj)
}

// ValidateUpdate implements admission.Validator.
func (v validator[T]) ValidateUpdate(ctx context.Context, old, obj T) (admission.Warnings, error) {
	if obj.GetDeletionTimestamp() != nil {
		return nil, nil
	}
	return v.validate(ctx, old, obj)
}

// ValidateDelete implements admission.Validator.
func (v validator[T]) ValidateDelete(context.Context, T) (admission.Warnings, error) { return nil, nil }

func (v validator[T]) validate(ctx context.Context, old, obj T) (admission.Warnings, error) {
	warnings, errs := v.check(ctx, old, obj)
	if len(errs) == 0 {
		return warnings, nil
	}
	kind, err := apiutil.GVKForObject(obj, v.client.Scheme())
	if err != nil {
		return nil, fmt.Errorf("kind of the object to check: %w", err)
	}
	return warnings, apierrors.NewInvalid(kind.GroupKind(), obj.GetName(), errs)
}

// pathAdmission is below the hub's port; token and name of a hook follow.
const pathAdmission = "/admission/v1/"

// ServeHTTP answers the API server's questions, and nobody else's.
func (a *Admission) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.PathValue("token")), []byte(a.token)) == 1 {
		for _, h := range a.hooks {
			if h.path() == r.PathValue("hook") {
				h.handler.ServeHTTP(w, r)
				return
			}
		}
	}
	http.NotFound(w, r)
}

func (h hook) path() string { return h.name + "." + h.resource }

// admissionTimeout bounds what a person waits for an answer of the hub, in seconds.
const admissionTimeout = 3

// configuration is what tells the API server to ask this hub at url.
func (a *Admission) configuration(url string, ca []byte) *admissionregistrationv1.ValidatingWebhookConfiguration {
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: InfoConfigMap},
	}
	for _, h := range a.hooks {
		c.Webhooks = append(c.Webhooks, admissionregistrationv1.ValidatingWebhook{
			Name:                    h.path() + "." + v1alpha1.Group,
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: new(url + pathAdmission + a.token + "/" + h.path()), CABundle: ca},
			FailurePolicy:           new(admissionregistrationv1.Ignore),
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			TimeoutSeconds:          new(int32(admissionTimeout)),
			AdmissionReviewVersions: []string{"v1"},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{v1alpha1.Group}, APIVersions: []string{v1alpha1.SchemeGroupVersion().Version}, Resources: []string{h.resource},
				},
			}},
		})
	}
	return c
}

// install makes the API server ask this hub at url; an empty url, that it asks no hub.
func (a *Admission) install(ctx context.Context, c client.Client, url string, ca []byte) error {
	wanted := a.configuration(url, ca)
	if url == "" || len(a.hooks) == 0 {
		if err := c.Delete(ctx, wanted); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("remove the configuration of admission: %w", err)
		}
		return nil
	}
	var have admissionregistrationv1.ValidatingWebhookConfiguration
	err := c.Get(ctx, client.ObjectKeyFromObject(wanted), &have)
	switch {
	case apierrors.IsNotFound(err):
		err = c.Create(ctx, wanted)
	case err == nil:
		wanted.ResourceVersion = have.ResourceVersion
		err = c.Update(ctx, wanted)
	}
	if err != nil {
		return fmt.Errorf("configure admission: %w", err)
	}
	return nil
}
