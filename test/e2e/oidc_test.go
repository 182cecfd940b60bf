package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/skerry-dev/skerry/test/fleettest"
)

// provider is an OpenID Connect provider: its discovery document, its key, and tokens that it signs.
type provider struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p := &provider{key: key}
	mux := http.NewServeMux()
	answer := func(path string, body func() any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(body())
		})
	}
	answer("/.well-known/openid-configuration", func() any {
		return map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}}
	})
	answer("/keys", func() any {
		point, err := key.PublicKey.Bytes() // 4, x, y
		if err != nil {
			return nil
		}
		return map[string]any{"keys": []any{map[string]string{
			"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": base64url(point[1:33]), "y": base64url(point[33:]),
		}}}
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

func base64url(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// token signs who somebody is (RFC 7519, ES256).
func (p *provider) token(t *testing.T, audience, email string, groups ...string) string {
	t.Helper()
	claims, err := json.Marshal(map[string]any{
		"iss": p.URL, "aud": audience, "sub": email, "email": email, "groups": groups,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	must(t, err)
	signed := base64url([]byte(`{"alg":"ES256","kid":"1","typ":"JWT"}`)) + "." + base64url(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, p.key, sum[:])
	must(t, err)
	return signed + "." + base64url(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// TestOIDC lets people in whom an OpenID Connect provider knows, by the flags of kube-apiserver.
func TestOIDC(t *testing.T) {
	fleettest.Require(t)
	p := newProvider(t)
	dir := fleettest.NewDir(t)
	ca := filepath.Join(t.TempDir(), "provider.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}), 0o600))
	h := fleettest.StartHub(t, programs, dir, "--addr", "127.0.0.1:0", "--kube-addr", "127.0.0.1:0",
		"--oidc-issuer-url", p.URL, "--oidc-client-id", "skerry", "--oidc-ca-file", ca, "--oidc-signing-algs", "ES256",
		"--oidc-username-claim", "email", "--oidc-username-prefix", "oidc:", "--oidc-groups-claim", "groups", "--oidc-groups-prefix", "oidc:")
	fleettest.Eventually(t, time.Minute, "the hub answers", func() string {
		if out, err := h.TrySkerry("get", "sites"); err != nil {
			return out
		}
		return ""
	})
	team := filepath.Join(t.TempDir(), "team.yaml")
	must(t, os.WriteFile(team, []byte(`apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editors, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: skerry-editor}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "oidc:editors"}]
`), 0o600))
	h.Skerry(t, "apply", "-f", team)
	ana := asToken(t, h, p.token(t, "skerry", "ana@example.com", "editors"))
	fleettest.Eventually(t, 30*time.Second, "the API server has read the provider's keys", func() string {
		if out, err := ana.skerry("get", "apps", "-n", "shop"); err != nil {
			return out
		}
		return ""
	})
	ana.mayNot("forbidden", "get", "apps", "-n", "default")
	// The hub's own endpoint knows the same people.
	if out, err := ana.skerry("status", "app/none", "-n", "shop"); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("status through the hub: %v\n%s", err, out)
	}
	ana.mayNot(`user "oidc:ana@example.com" may not get apps/status`, "status", "app/none", "-n", "default")
	for reason, token := range map[string]string{
		"a token for somebody else":     p.token(t, "other", "ana@example.com", "editors"),
		"a token of another provider":   newProvider(t).token(t, "skerry", "ana@example.com", "editors"),
		"a token that somebody changed": p.token(t, "skerry", "ana@example.com", "editors") + "A",
		"no token at all":               "",
	} {
		if out, err := asToken(t, h, token).skerry("get", "apps", "-n", "shop"); err == nil {
			t.Errorf("%s is taken: %s", reason, out)
		}
	}
}

// asToken is somebody who has nothing but a token.
func asToken(t *testing.T, h *fleettest.Hub, token string) person {
	t.Helper()
	config, err := clientcmd.LoadFromFile(h.Kubeconfig)
	must(t, err)
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, clientcmd.WriteToFile(*config, path))
	return person{t: t, kubeconfig: path, dir: t.TempDir()}
}
