package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/hub"
)

// objects makes what `up` needs through the same interfaces that people use.
type objects struct {
	client client.Client
	hub    *hubclient.Client
}

func newObjects(ctx context.Context, r runningHub) (*objects, error) {
	scheme, err := hub.Scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(r.config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("client of the Kubernetes API: %w", err)
	}
	h, err := hubclient.New(ctx, r.config)
	if err != nil {
		return nil, err
	}
	return &objects{client: c, hub: h}, nil
}

// create makes an object unless it is there: what a person changed stays.
func (o *objects) create(ctx context.Context, obj client.Object) error {
	err := o.client.Create(ctx, obj)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make %T %s: %w", obj, obj.GetName(), err)
	}
	return nil
}

// grantDefault lets namespace default place programs and wasm, not as root, on every site of this hub.
func (o *objects) grantDefault(ctx context.Context) error {
	return o.create(ctx, &v1alpha1.SiteGrant{
		ObjectMeta: metav1.ObjectMeta{Name: "default-everywhere"},
		Spec: v1alpha1.SiteGrantSpec{
			Namespaces: []string{"default"}, Sites: metav1.LabelSelector{}, Runtimes: []string{"process", "wasm"},
		},
	})
}

func (o *objects) site(ctx context.Context, name string) error {
	return o.create(ctx, &v1alpha1.Site{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kind": "shop"}},
		Spec:       v1alpha1.SiteSpec{Description: "a site that `skerry up` runs on this machine", Zone: "local"},
	})
}

func (o *objects) token(ctx context.Context, name string) (string, error) {
	var answer enroll.TokenAnswer
	path := strings.Replace(enroll.PathToken, "{site}", name, 1)
	err := o.hub.Post(ctx, path, enroll.TokenRequest{TTLSeconds: int((5 * time.Minute).Seconds())}, &answer)
	if err != nil {
		return "", fmt.Errorf("make join token of site %s: %w", name, err)
	}
	return answer.Token, nil
}
