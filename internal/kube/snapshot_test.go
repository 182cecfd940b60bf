package kube_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/skerry-dev/skerry/internal/kube"
	"github.com/skerry-dev/skerry/internal/kubetest"
)

// TestSnapshot takes a server's store while it runs and while it does not, and continues each in another
// directory.
func TestSnapshot(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	first := kubetest.Start(t)
	client := kubernetes.NewForConfigOrDie(first.Config)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": secretValue}}
	if _, err := client.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var running bytes.Buffer
	if err := kube.Snapshot(ctx, first.Dir, &running, quiet); err != nil {
		t.Fatal(err)
	}
	refuses(t, running.Bytes(), quiet)
	later := create(ctx, t, client, "later")
	first.Kill()
	if err := kube.Snapshot(ctx, first.Dir, io.Discard, quiet); err == nil {
		t.Error("a snapshot of a server that does not run")
	}

	second := resume(t, first.Dir, running.Bytes(), quiet)
	client = kubernetes.NewForConfigOrDie(second.Config)
	got, err := client.CoreV1().Secrets("default").Get(ctx, "s", metav1.GetOptions{})
	if err != nil || string(got.Data["k"]) != secretValue {
		t.Errorf("the restored secret is %v, %v", got, err)
	}
	if _, err := client.CoreV1().ConfigMaps("default").Get(ctx, "later", metav1.GetOptions{}); err == nil {
		t.Error("what was made after the snapshot is there")
	}
	if v := create(ctx, t, client, "after"); v <= later {
		t.Errorf("resource versions begin again at %d, although clients saw %d: they would miss changes", v, later)
	}
	second.Kill()
	var stopped bytes.Buffer
	if err := kube.SnapshotStopped(ctx, second.Dir, &stopped, quiet); err != nil {
		t.Fatal(err)
	}
	third := resume(t, second.Dir, stopped.Bytes(), quiet)
	client = kubernetes.NewForConfigOrDie(third.Config)
	if _, err := client.CoreV1().ConfigMaps("default").Get(ctx, "after", metav1.GetOptions{}); err != nil {
		t.Errorf("what was acknowledged before a kill is not in the snapshot: %v", err)
	}
}

// refuses holds that nothing is restored of what is not a whole snapshot.
func refuses(t *testing.T, snapshot []byte, log *slog.Logger) {
	t.Helper()
	flipped := bytes.Clone(snapshot)
	flipped[len(flipped)/2] ^= 1
	for reason, data := range map[string][]byte{
		"a bit fell over": flipped, "it broke off": snapshot[:len(snapshot)/2], "the checksum is missing": snapshot[:len(snapshot)-32],
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "snapshot")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := kube.RestoreSnapshot(dir, file, log); err == nil {
			t.Errorf("%s: it was taken", reason)
		}
	}
}

// resume starts a server on a snapshot of the store and the keys of another directory.
func resume(t *testing.T, old string, snapshot []byte, log *slog.Logger) *kubetest.Server {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(kube.KeysDir(dir), os.DirFS(kube.KeysDir(old))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "snapshot")
	if err := os.WriteFile(file, snapshot, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := kube.RestoreSnapshot(dir, file, log); err != nil {
		t.Fatal(err)
	}
	return kubetest.StartIn(t, dir)
}

func create(ctx context.Context, t *testing.T, client *kubernetes.Clientset, name string) (version int64) {
	t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	m, err := client.CoreV1().ConfigMaps("default").Create(ctx, m, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	version, err = strconv.ParseInt(m.ResourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return version
}
