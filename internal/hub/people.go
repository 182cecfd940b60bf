package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

// Errors of People.
var (
	// ErrUnauthenticated means that nobody known made the request.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrForbidden means that the person may not do this.
	ErrForbidden = errors.New("forbidden")
)

// How long an answer of the Kubernetes API about a person is believed. A right that is withdrawn ends
// within this time.
const (
	authCache = 10 * time.Second
	denyCache = 2 * time.Second
)

// People says who made a request on the hub's port and what they may do, by asking the Kubernetes API:
// TokenReview for bearer tokens, the cluster's client authority for certificates, SubjectAccessReview for
// rights. This is how aggregated API servers delegate.
type People struct {
	authn authenticator.Request
	authz authorizer.Authorizer
	ca    *dynamiccertificates.ConfigMapCAController
	log   *slog.Logger
}

// NewPeople returns a People that asks the API of config. Start must run for client certificates to be
// known.
func NewPeople(config *rest.Config, log *slog.Logger) (*People, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for authentication: %w", err)
	}
	ca, err := dynamiccertificates.NewDynamicCAFromConfigMapController("client-ca", "kube-system",
		"extension-apiserver-authentication", "client-ca-file", client)
	if err != nil {
		return nil, fmt.Errorf("follow the cluster's client authority: %w", err)
	}
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Steps: 4}
	authn, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient:            client.AuthenticationV1(),
		TokenAccessReviewTimeout:           callTimeout,
		WebhookRetryBackoff:                &backoff,
		CacheTTL:                           authCache,
		ClientCertificateCAContentProvider: ca,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("make delegated authentication: %w", err)
	}
	authz, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client.AuthorizationV1(),
		AllowCacheTTL:             authCache,
		DenyCacheTTL:              denyCache,
		WebhookRetryBackoff:       &backoff,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("make delegated authorisation: %w", err)
	}
	return &People{authn: authn, authz: authz, ca: ca, log: log}, nil
}

// NeedLeaderElection makes People work on every hub.
func (p *People) NeedLeaderElection() bool { return false }

// knownTimeout is how long a hub that starts waits for the cluster's client authority.
const knownTimeout = 30 * time.Second

// AwaitKnown returns when client certificates can be judged, which needs Start to run: an API server publishes
// its authority moments after it is ready. Where it never does, certificates are refused and tokens serve.
func (p *People) AwaitKnown(ctx context.Context) {
	err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, knownTimeout, true, func(context.Context) (bool, error) {
		_, known := p.ca.VerifyOptions()
		return known, nil
	})
	if err != nil && ctx.Err() == nil {
		p.log.Warn("the cluster publishes no client authority (ConfigMap kube-system/extension-apiserver-authentication): people need tokens")
	}
}

// Start follows the cluster's client authority until ctx ends.
func (p *People) Start(ctx context.Context) error {
	p.ca.Run(ctx, 1)
	return nil
}

// Right is something a person wants to do to an object of group skerry.dev, or, with Path, to a path.
type Right struct {
	Verb, Resource, Subresource, Namespace, Name string
	// Path is a non-resource path such as "/metrics"; the fields above but Verb are then empty.
	Path string
}

// String names the right as it would stand in a role.
func (r Right) String() string {
	if r.Path != "" {
		return r.Verb + " " + r.Path
	}
	s := r.Verb + " " + r.Resource
	if r.Subresource != "" {
		s += "/" + r.Subresource
	}
	if r.Name != "" {
		s += " " + r.Name
	}
	if r.Namespace != "" {
		s += " in namespace " + r.Namespace
	}
	return s
}

// Check returns who made the request when they have the right, or an error that wraps ErrUnauthenticated
// or ErrForbidden. What is checked is audited.
func (p *People) Check(r *http.Request, right Right) (user.Info, error) {
	// A token that was judged is taken out of the request: a handler may check more than one right.
	r = r.Clone(r.Context())
	// A registry client sends a token as the password of Basic authentication.
	if _, password, ok := r.BasicAuth(); ok {
		r.Header.Set("Authorization", "Bearer "+password)
	}
	res, ok, err := p.authn.AuthenticateRequest(r)
	if err != nil || !ok {
		p.log.Info("audit", "right", right.String(), "decision", "unauthenticated", "remote", r.RemoteAddr, "error", err)
		return nil, fmt.Errorf("%s: use a client certificate or token of the Kubernetes API: %w", right, ErrUnauthenticated)
	}
	decision, reason, err := p.authz.Authorize(r.Context(), authorizer.AttributesRecord{
		User: res.User, Verb: right.Verb, Namespace: right.Namespace, Name: right.Name,
		APIGroup: v1alpha1.Group, APIVersion: v1alpha1.SchemeGroupVersion().Version,
		Resource: right.Resource, Subresource: right.Subresource,
		ResourceRequest: right.Path == "", Path: right.Path,
	})
	if err != nil {
		return nil, fmt.Errorf("ask whether %s may %s: %w", res.User.GetName(), right, err)
	}
	allowed := decision == authorizer.DecisionAllow
	p.log.Info("audit", "user", res.User.GetName(), "right", right.String(), "allowed", allowed, "remote", r.RemoteAddr)
	if !allowed {
		return nil, fmt.Errorf("user %q may not %s%s: %w", res.User.GetName(), right, because(reason), ErrForbidden)
	}
	return res.User, nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// ViewError is the body of every failed answer of the hub's views.
type ViewError struct {
	// Message is for people.
	Message string `json:"message"`
	// Reason is for programs: one word, such as "NotFound" or "SiteAway".
	Reason string `json:"reason"`
}

// Fail answers a request with the status that err calls for.
func Fail(w http.ResponseWriter, err error) {
	status, reason := http.StatusInternalServerError, "InternalError"
	switch {
	case errors.Is(err, ErrUnauthenticated):
		status, reason = http.StatusUnauthorized, "Unauthorized"
	case errors.Is(err, ErrForbidden):
		status, reason = http.StatusForbidden, "Forbidden"
	case errors.Is(err, ErrNotFound):
		status, reason = http.StatusNotFound, "NotFound"
	case errors.Is(err, ErrBadRequest):
		status, reason = http.StatusBadRequest, "BadRequest"
	case errors.Is(err, ErrSiteAway):
		status, reason = http.StatusServiceUnavailable, "SiteAway"
	case errors.Is(err, ErrRefused):
		status, reason = http.StatusBadGateway, "SiteRefused"
	}
	Answer(w, status, ViewError{Message: err.Error(), Reason: reason})
}

// Errors that views return to say what status to answer.
var (
	ErrNotFound   = errors.New("not found")
	ErrBadRequest = errors.New("bad request")
)

// Answer writes v as JSON.
func Answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The caller has gone when this fails; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// TrailerError is the HTTP trailer that says why a streamed answer ended early; absent when it ended well.
const TrailerError = "Skerry-Error"
