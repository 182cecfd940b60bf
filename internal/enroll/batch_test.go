package enroll_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// post asks the hub with a bearer token, or as the administrator when there is none.
func (w *wholeHub) post(t *testing.T, path, bearer string, body any) (status int, answer []byte) {
	t.Helper()
	data, err := json.Marshal(body)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca)
	config := &tls.Config{RootCAs: roots}
	if bearer == "" {
		pair, err := clientCertificate(w.api)
		must(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+path, bytes.NewReader(data))
	must(t, err)
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	must(t, err)
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, answer
}

// person makes an account with one rule and returns its token.
func (w *wholeHub) person(t *testing.T, name string, rule rbacv1.PolicyRule) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: hub.SystemNamespace, Name: name}}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: hub.SystemNamespace, Name: name}},
	}
	for _, o := range []client.Object{account, role, binding} {
		must(t, w.objects.Create(t.Context(), o))
	}
	request := &authenticationv1.TokenRequest{}
	must(t, w.objects.SubResource("token").Create(t.Context(), account, request))
	return request.Status.Token
}

func sitesOf(names ...fleet.SiteName) enroll.TokensRequest {
	var r enroll.TokensRequest
	for _, n := range names {
		r.Sites = append(r.Sites, enroll.TokenSite{Name: n})
	}
	return r
}

func TestBatchOfTokens(t *testing.T) {
	w := startWholeHub(t)
	ctx := t.Context()
	for _, name := range []string{"shop-1", "shop-2"} {
		must(t, w.objects.Create(ctx, &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	eventually(t, "the administrator is known", func() bool {
		status, _ := w.post(t, enroll.PathTokens, "", sitesOf("shop-1"))
		return status == http.StatusCreated
	})
	ben := w.person(t, "ben", rbacv1.PolicyRule{APIGroups: []string{v1alpha1.Group}, Resources: []string{"sites/token"}, Verbs: []string{"create"}, ResourceNames: []string{"shop-1"}})

	tokensThere := func() int {
		t.Helper()
		var list corev1.SecretList
		must(t, w.objects.List(ctx, &list, client.InNamespace(hub.SystemNamespace), client.MatchingFields{"type": "skerry.dev/join-token"}))
		return len(list.Items)
	}
	many := sitesOf()
	for i := range enroll.MaxBatch + 1 {
		many.Sites = append(many.Sites, enroll.TokenSite{Name: fleet.SiteName(fmt.Sprintf("shop-%d", i))})
	}
	tests := []struct {
		why     string
		bearer  string
		request enroll.TokensRequest
		status  int
		message string
	}{
		{"nobody known", "x", sitesOf("shop-1"), http.StatusUnauthorized, "use a client certificate"},
		{"a right for one site is not one for two", ben, sitesOf("shop-1", "shop-2"), http.StatusForbidden, "shop-2"},
		{"no site", "", sitesOf(), http.StatusBadRequest, "want 1 to 500"},
		{"too many", "", many, http.StatusBadRequest, "want 1 to 500"},
		{"twice the same", "", sitesOf("shop-1", "shop-1"), http.StatusBadRequest, "named twice"},
		{"no name of a site", "", sitesOf("Shop 1"), http.StatusBadRequest, "sites[0]"},
		{"a site that is not there leaves the others without, too", "", sitesOf("shop-1", "shop-9"), http.StatusNotFound, "shop-9"},
		{"a token for ever", "", enroll.TokensRequest{TTLSeconds: 1 << 30, Sites: sitesOf("shop-1").Sites}, http.StatusBadRequest, "ttlSeconds"},
		{"no fingerprint", "", enroll.TokensRequest{Sites: []enroll.TokenSite{{Name: "shop-1", Fingerprint: "x"}}}, http.StatusBadRequest, "fingerprint"},
	}
	before := tokensThere()
	for _, tt := range tests {
		status, body := w.post(t, enroll.PathTokens, tt.bearer, tt.request)
		if status != tt.status || !strings.Contains(string(body), tt.message) {
			t.Errorf("%s: %d %s, want %d with %q", tt.why, status, body, tt.status, tt.message)
		}
	}
	if after := tokensThere(); after != before {
		t.Errorf("requests that were refused made %d tokens", after-before)
	}
	if status, body := w.post(t, enroll.PathTokens, ben, sitesOf("shop-1")); status != http.StatusCreated {
		t.Errorf("for the one site that he may: %d %s", status, body)
	}
	w.joinBatch(t)
}

// joinBatch makes a batch of which one token is bound to a machine, and joins with each.
func (w *wholeHub) joinBatch(t *testing.T) {
	t.Helper()
	request := sitesOf("shop-1", "shop-2")
	request.Sites[1].Fingerprint = machineA
	status, body := w.post(t, enroll.PathTokens, "", request)
	var answer enroll.TokensAnswer
	must(t, json.Unmarshal(body, &answer))
	if status != http.StatusCreated || len(answer.Tokens) != 2 {
		t.Fatalf("%d, %d tokens", status, len(answer.Tokens))
	}
	var tokens []enroll.Token
	for _, text := range answer.Tokens {
		token, err := enroll.ParseToken(text)
		must(t, err)
		tokens = append(tokens, token)
	}
	if first, err := enrollsite.Join(t.Context(), siteOptions(t), tokens[0]); err != nil || first.Site() != "shop-1" {
		t.Fatalf("joined as %v, %v", first, err)
	}
	_, err := enrollsite.Join(t.Context(), optionsOf(t, machineB), tokens[1])
	wantRefused(t, err, wire.RefusedHardware)
	second, err := enrollsite.Join(t.Context(), optionsOf(t, machineA), tokens[1])
	must(t, err)
	wantKnown(t, second)
	var site v1alpha1.Site
	must(t, w.objects.Get(t.Context(), client.ObjectKey{Name: "shop-2"}, &site))
	if m := site.Status.Members; len(m) != 1 || m[0].Fingerprint != machineA {
		t.Errorf("members of shop-2 are %+v", m)
	}
	// From now on the site itself is for one machine.
	site.Spec.Fingerprint = machineB
	must(t, w.objects.Update(t.Context(), &site))
	status, body = w.post(t, enroll.PathTokens, "", sitesOf("shop-2"))
	must(t, json.Unmarshal(body, &answer))
	again, err := enroll.ParseToken(answer.Tokens[0])
	must(t, err)
	_, err = enrollsite.Join(t.Context(), optionsOf(t, machineA), again)
	wantRefused(t, err, wire.RefusedHardware)
	if third, err := enrollsite.Join(t.Context(), optionsOf(t, machineB), again); err != nil || status != http.StatusCreated {
		t.Errorf("the machine of the site: %v, %v", third, err)
	}
	wantRefused(t, second.Renew(t.Context()), wire.RefusedRevoked)
}

// TestThousandTokens keeps a batch of a thousand within a time that a person waits.
func TestThousandTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand writes")
	}
	w := startWholeHub(t)
	eventually(t, "the administrator is known", func() bool {
		status, _ := w.post(t, enroll.PathTokens, "", sitesOf())
		return status == http.StatusBadRequest
	})
	const n, writers = 1000, 16
	all, failed := make([]enroll.TokenSite, n), make([]error, writers)
	var wg sync.WaitGroup
	for writer := range writers {
		wg.Go(func() {
			for i := writer; i < n && failed[writer] == nil; i += writers {
				name := fmt.Sprintf("shop-%d", i)
				failed[writer] = w.objects.Create(t.Context(), &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}})
				all[i] = enroll.TokenSite{Name: fleet.SiteName(name)}
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(failed...))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start, seen := time.Now(), map[string]bool{}
	for rest := all; len(rest) > 0 && ctx.Err() == nil; rest = rest[enroll.MaxBatch:] {
		status, body := w.post(t, enroll.PathTokens, "", enroll.TokensRequest{Sites: rest[:enroll.MaxBatch]})
		var answer enroll.TokensAnswer
		must(t, json.Unmarshal(body, &answer))
		if status != http.StatusCreated {
			t.Fatalf("%d %s", status, body)
		}
		for _, token := range answer.Tokens {
			seen[token] = true
		}
	}
	t.Logf("%d tokens took %v", n, time.Since(start))
	if len(seen) != n || ctx.Err() != nil {
		t.Errorf("%d different tokens within a minute, want %d", len(seen), n)
	}
}
