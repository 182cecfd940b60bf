package hub_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
)

// person makes a service account and returns what reaches the API with its token and no other right.
func person(t *testing.T, api *kubetest.Server, name string) *rest.Config {
	t.Helper()
	clients := kubernetes.NewForConfigOrDie(api.Config)
	_, err := clients.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	token, err := clients.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(api.Config)
	config.BearerToken = token.Status.Token
	return config
}

// do asks for url with the identity of config; change may add to the request.
func do(t *testing.T, config *rest.Config, url string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, c, url, change)
}

func ask(t *testing.T, c *http.Client, url string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// door is a handler that lets in who may do what its query names.
func door(people *hub.People) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		user, err := people.Check(r, hub.Right{
			Verb: q.Get("verb"), Resource: q.Get("resource"), Subresource: q.Get("sub"), Namespace: q.Get("ns"), Name: q.Get("name"), Path: q.Get("path"),
		})
		if err != nil {
			hub.Fail(w, err)
			return
		}
		hub.Answer(w, http.StatusOK, user.GetName())
	}
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func testPeople(t *testing.T, api *kubetest.Server) {
	people, err := hub.NewPeople(api.Config, discard())
	if err != nil {
		t.Fatal(err)
	}
	early, end := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer end()
	if people.AwaitKnown(early); early.Err() == nil {
		t.Error("certificates are said to be known before anybody read the authority")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- people.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("People ended with %v", err)
		}
	}()
	server := httptest.NewUnstartedServer(door(people))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()

	token := person(t, api, "pusher").BearerToken
	grantTo(t, api, "pusher")
	cluster, foreign := hubtest.ClusterAuthority(t, api), hubtest.NewAuthority(t, "ca")
	expired := cluster.Issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "late", Organization: []string{"system:masters"}}, NotBefore: time.Now().Add(-2 * time.Hour),
		NotAfter: time.Now().Add(-time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	serving := cluster.Issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "server", Organization: []string{"system:masters"}}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	const create = "?verb=create&resource=bundles&ns=shop"
	tests := []struct {
		reason string
		cert   *tls.Certificate
		change func(*http.Request)
		right  string
		status int
		says   string
	}{
		{"a token with the right", nil, bearer(token), create, 200, "system:serviceaccount:default:pusher"},
		{"a registry client sends the token as a password", nil, basic("anybody", token), create, 200, "system:serviceaccount:default:pusher"},
		{"another namespace", nil, bearer(token), "?verb=create&resource=bundles&ns=other", 403, "may not create bundles in namespace other"},
		{"another verb", nil, bearer(token), "?verb=delete&resource=bundles&ns=shop", 403, "may not delete bundles"},
		{"another resource", nil, bearer(token), "?verb=create&resource=apps&ns=shop", 403, "may not create apps"},
		{"a subresource is a right of its own", nil, bearer(token), "?verb=create&resource=bundles&sub=log&ns=shop", 403, "bundles/log"},
		{"a path is a right of its own", nil, bearer(token), "?verb=get&path=/metrics", 403, "get /metrics"},
		{"every namespace is more than one", nil, bearer(token), "?verb=create&resource=bundles", 403, "may not create bundles"},
		{"nobody", nil, nil, create, 401, "use a client certificate or token"},
		{"a token that the cluster did not make", nil, bearer("eyJhbGciOiJub25lIn0.e30."), create, 401, "not authenticated"},
		{"a token that was changed", nil, bearer(token[:len(token)-4] + "AAAA"), create, 401, "not authenticated"},
		{"a password that is no token", nil, basic("admin", "admin"), create, 401, "not authenticated"},
		{"no password", nil, basic("admin", ""), create, 401, "not authenticated"},
		{"a header of the front proxy is not for us", nil, func(r *http.Request) {
			r.Header.Set("X-Remote-User", "admin")
			r.Header.Set("X-Remote-Group", "system:masters")
		}, create, 401, "not authenticated"},
		{"impersonation is not for us", nil, func(r *http.Request) {
			bearer(token)(r)
			r.Header.Set("Impersonate-User", "admin")
			r.Header.Set("Impersonate-Group", "system:masters")
		}, "?verb=delete&resource=bundles&ns=shop", 403, "pusher"},
		{"a certificate of an administrator", new(cluster.Leaf(t, "root", "system:masters")), nil, "?verb=delete&resource=sites&name=shop-1", 200, "root"},
		{"an administrator may read paths", new(cluster.Leaf(t, "root", "system:masters")), nil, "?verb=get&path=/metrics", 200, "root"},
		{"a certificate of somebody without rights", new(cluster.Leaf(t, "guest", "guests")), nil, create, 403, `user "guest"`},
		{"a certificate of a group with the right", new(cluster.Leaf(t, "ann", "pushers")), nil, create, 200, "ann"},
		{"a certificate of another authority of the same name", new(foreign.Leaf(t, "root", "system:masters")), nil, create, 401, "not authenticated"},
		{"a certificate that has ended", &expired, nil, create, 401, "not authenticated"},
		{"a certificate for servers", &serving, nil, create, 401, "not authenticated"},
	}
	people.AwaitKnown(ctx)
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			res, body := ask(t, clientOf(server, tt.cert), server.URL+"/"+tt.right, tt.change)
			if res.StatusCode != tt.status || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), tt.says) {
				t.Errorf("answered %s %s, want %d with %s", res.Status, body, tt.status, tt.says)
			}
			if strings.Contains(body, token) {
				t.Error("the answer holds the token")
			}
		})
	}
}

func clientOf(server *httptest.Server, cert *tls.Certificate) *http.Client {
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

// grantTo lets a service account, and group "pushers", create bundles in namespace shop.
func grantTo(t *testing.T, api *kubetest.Server, account string) {
	t.Helper()
	clients := kubernetes.NewForConfigOrDie(api.Config)
	for _, ns := range []string{"shop", "other"} {
		if _, err := clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := clients.RbacV1().Roles("shop").Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "pusher"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"skerry.dev"}, Resources: []string{"bundles"}, Verbs: []string{"create"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = clients.RbacV1().RoleBindings("shop").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "pusher"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "pusher"},
		Subjects: []rbacv1.Subject{
			{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: account},
			{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "pushers"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFail(t *testing.T) {
	tests := []struct {
		err    error
		status int
		reason string
	}{
		{hub.ErrUnauthenticated, 401, "Unauthorized"}, {hub.ErrForbidden, 403, "Forbidden"}, {hub.ErrNotFound, 404, "NotFound"},
		{hub.ErrBadRequest, 400, "BadRequest"}, {hub.ErrSiteAway, 503, "SiteAway"}, {hub.ErrRefused, 502, "SiteRefused"},
		{errors.New("disk"), 500, "InternalError"},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		hub.Fail(w, fmt.Errorf("app x: %w", tt.err))
		want := fmt.Sprintf(`{"message":"app x: %s","reason":%q}`, tt.err, tt.reason)
		if w.Code != tt.status || strings.TrimSpace(w.Body.String()) != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%v is answered with %d %s", tt.err, w.Code, w.Body)
		}
	}
}
