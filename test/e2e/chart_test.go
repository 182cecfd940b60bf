package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// helm runs the pinned Helm on the chart.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"tool", "-modfile=../../tools/go.mod", "helm"}, args...)...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestChart renders the chart in its variants, holds each object to its type's own fields, and runs a hub with
// the rights of the variant that uses the cluster's API, and with no other.
func TestChart(t *testing.T) {
	fleettest.Require(t)
	const chart = "../../deploy/chart"
	if out, err := helm(t, "template", "x", chart); err == nil || !strings.Contains(out, "/public/name") {
		t.Errorf("a hub without a name: %v\n%s", err, out)
	}
	if out, err := helm(t, "template", "x", chart, "--set", "public.name=hub.example.com,api=both"); err == nil || !strings.Contains(out, "/api") {
		t.Errorf("an API that there is not: %v\n%s", err, out)
	}
	variants := map[string]string{
		"embedded": "public.name=hub.example.com",
		"exposed":  "public.name=hub.example.com,public.port=7443,service.exposeAPI=true,image.digest=sha256:" + strings.Repeat("a", 64),
		"cluster":  "public.name=hub.example.com,api=cluster,persistence.storageClass=fast,extraArgs={--log-level=debug}",
	}
	rendered := map[string]string{}
	for name, set := range variants {
		out, err := helm(t, "template", "skerry", chart, "--namespace", "skerry-hub", "--set", set)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		checkObjects(t, name, out)
		rendered[name] = out
	}
	if !strings.Contains(rendered["exposed"], "@sha256:aaaa") || !strings.Contains(rendered["exposed"], "https://hub.example.com:7443") {
		t.Errorf("exposed: digest or port is missing:\n%s", rendered["exposed"])
	}
	t.Run("the rights suffice", func(t *testing.T) { hubWithRights(t, rendered["cluster"]) })
}

// checkObjects decodes every object strictly: a field that its type does not have is a mistake.
func checkObjects(t *testing.T, variant, text string) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil || kind.Kind == "" {
			continue
		}
		into := map[string]any{
			"ServiceAccount": &corev1.ServiceAccount{}, "Service": &corev1.Service{}, "StatefulSet": &appsv1.StatefulSet{},
			"ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
		}[kind.Kind]
		if into == nil {
			t.Errorf("%s: kind %s is not checked", variant, kind.Kind)
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			t.Errorf("%s: %s: %v", variant, kind.Kind, err)
		}
	}
}

// hubWithRights runs a hub on an API server as the chart's service account.
func hubWithRights(t *testing.T, rendered string) {
	api := kubetest.Start(t)
	var rights []string
	for doc := range strings.SplitSeq(rendered, "\n---\n") {
		if strings.Contains(doc, "\nkind: ServiceAccount") || strings.Contains(doc, "\nkind: ClusterRole") {
			rights = append(rights, doc)
		}
	}
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: skerry-hub}\n"
	file := filepath.Join(t.TempDir(), "rights.yaml")
	must(t, os.WriteFile(file, []byte(namespace+"---\n"+strings.Join(rights, "\n---\n")), 0o600))
	admin := person{t: t, kubeconfig: api.Kubeconfig, dir: t.TempDir()}
	admin.may("apply", "-n", "skerry-hub", "-f", file)
	token, err := kubernetes.NewForConfigOrDie(api.Config).CoreV1().ServiceAccounts("skerry-hub").
		CreateToken(t.Context(), "skerry", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	config, err := clientcmd.LoadFromFile(api.Kubeconfig)
	must(t, err)
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	}
	kubeconfig := filepath.Join(t.TempDir(), "hub.kubeconfig")
	must(t, clientcmd.WriteToFile(*config, kubeconfig))

	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--kubeconfig", kubeconfig, "--addr", "127.0.0.1:0")
	h.Kubeconfig = api.Kubeconfig
	h.Join(t, "box-1")
	dir := t.TempDir()
	cmd := person{t: t, kubeconfig: api.Kubeconfig, dir: dir}
	cmd.may("app", "init", "hello")
	cmd.may("push", "hello", "--version", "1.0.0")
	cmd.may("apply", "-f", cmd.file("all.yaml", `apiVersion: skerry.dev/v1alpha1
kind: SiteGrant
metadata: {name: all}
spec: {namespaces: [default], sites: {}, runtimes: [process]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: Moin}
---
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: correct horse}
---
apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: hello}
spec:
  source: {bundle: "hello:1.0.0"}
  placement: {sites: {}}
  valuesFrom: [{configMapRef: {name: words}}]
  secretRefs: [{name: db, env: [{name: DB_PASSWORD, key: password}]}]
`))
	cmd.may("wait", "app/hello", "--for=condition=Ready", "--timeout=60s")
	cmd.may("status", "app/hello")
	cmd.may("logs", "app/hello", "--site", "box-1")
	cmd.may("delete", "app", "hello")
}
