package kube_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/skerry-dev/skerry/internal/kubetest"
)

const secretValue = "correct horse battery staple"

// TestServer walks through what a hub needs of its API in one life of a server and the next: starting one
// takes seconds.
func TestServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	server := kubetest.StartIn(t, dir)
	client := kubernetes.NewForConfigOrDie(server.Config)

	t.Run("it says which Kubernetes it is", func(t *testing.T) {
		v, err := client.Discovery().ServerVersion()
		if err != nil || !strings.HasPrefix(v.GitVersion, "v1.36.") {
			t.Fatalf("version %v, error %v; want v1.36.x", v, err)
		}
	})
	t.Run("nobody gets in without a certificate", func(t *testing.T) {
		anonymous, err := kubernetes.NewForConfig(rest.AnonymousClientConfig(server.Config))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := anonymous.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
			t.Fatalf("listing secrets anonymously: %v, want a refusal", err)
		}
	})
	t.Run("a deleted namespace goes with what it holds", func(t *testing.T) {
		ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().ConfigMaps("shop").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, func() bool {
			_, err := client.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
	t.Run("an owned object goes with its owner", func(t *testing.T) {
		owner, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		owned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}}}
		if _, err := client.CoreV1().ConfigMaps("default").Create(ctx, owned, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := client.CoreV1().ConfigMaps("default").Delete(ctx, owner.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, func() bool {
			_, err := client.CoreV1().ConfigMaps("default").Get(ctx, "owned", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
	t.Run("what it keeps is for its owner alone", func(t *testing.T) {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && !d.IsDir() && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": secretValue}}
	if _, err := client.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	t.Run("a secret is nowhere on disk in the clear", func(t *testing.T) { noFileHolds(t, dir, secretValue) })

	server = kubetest.StartIn(t, dir)
	client = kubernetes.NewForConfigOrDie(server.Config)
	t.Run("what was kept survives kill -9", func(t *testing.T) {
		got, err := client.CoreV1().Secrets("default").Get(ctx, "s", metav1.GetOptions{})
		if err != nil || string(got.Data["k"]) != secretValue {
			t.Fatalf("secret after restart: %v, error %v", got, err)
		}
	})
	t.Run("it says that it is ready", func(t *testing.T) {
		raw, err := client.Discovery().RESTClient().Get().AbsPath("/openapi/v2").DoRaw(ctx)
		if err != nil || !json.Valid(raw) {
			t.Fatalf("openapi: %v", err)
		}
	})
}

func eventually(ctx context.Context, t *testing.T, ok func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 60*time.Second, true, func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		t.Fatalf("did not come true: %v", err)
	}
}

func noFileHolds(t *testing.T, dir, value string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		if strings.Contains(string(data), value) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("read %d files: %v", files, err)
	}
}
