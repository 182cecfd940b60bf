package hub

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/config"
)

// FieldManager is the name under which the hub applies objects of its own.
const FieldManager = "skerry-hub"

// installTimeout bounds the wait for new types to be served.
const installTimeout = 30 * time.Second

// InstallTypes applies the custom resource definitions that this hub was built with and returns when all
// of them are served, and every object is stored in the version that they say.
func InstallTypes(ctx context.Context, config *rest.Config) error {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return fmt.Errorf("make scheme: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("client to install types: %w", err)
	}
	crds, err := typeDefinitions()
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(crd), client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
			return fmt.Errorf("install type %s: %w", crd.GetName(), err)
		}
	}
	asker, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("client to await types: %w", err)
	}
	found, err := discovery.NewDiscoveryClientForConfigAndClient(config, asker)
	if err != nil {
		return fmt.Errorf("client to await types: %w", err)
	}
	for _, crd := range crds {
		t, err := typeOf(config, crd)
		if err != nil {
			return fmt.Errorf("type %s: %w", crd.GetName(), err)
		}
		last := errors.New("not asked yet")
		err = wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, installTimeout, true, func(ctx context.Context) (bool, error) {
			if last = listed(ctx, asker, t.listURL); last == nil {
				last = t.discovered(found)
			}
			return last == nil, nil
		})
		if err != nil {
			return fmt.Errorf("wait until type %s is served: %w: %w", crd.GetName(), err, last)
		}
		if err := migrateStored(ctx, c, crd.GetName(), migratePage); err != nil {
			return err
		}
	}
	return nil
}

// servedType is where one type of ours is found.
type servedType struct {
	resource schema.GroupVersionResource
	listURL  string
}

func typeOf(config *rest.Config, crd *unstructured.Unstructured) (servedType, error) {
	var typed apiextensionsv1.CustomResourceDefinition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(crd.Object, &typed); err != nil {
		return servedType{}, fmt.Errorf("read definition: %w", err)
	}
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return servedType{}, fmt.Errorf("address of the Kubernetes API: %w", err)
	}
	r := schema.GroupVersionResource{Group: typed.Spec.Group, Version: typed.Spec.Versions[0].Name, Resource: typed.Spec.Names.Plural}
	u := server.JoinPath("apis", r.Group, r.Version, r.Resource)
	u.RawQuery = "limit=1"
	return servedType{resource: r, listURL: u.String()}, nil
}

// discovered reports why clients that ask the server what it has do not find the type yet: they read a
// document that the server makes anew a moment after it serves a type.
func (t servedType) discovered(c *discovery.DiscoveryClient) error {
	_, resources, _, err := c.GroupsAndMaybeResources()
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	if resources == nil {
		return nil // a server of before aggregated discovery: each group is asked for itself
	}
	list, ok := resources[t.resource.GroupVersion()]
	if !ok || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == t.resource.Resource }) {
		return fmt.Errorf("discovery does not name %s yet", t.resource)
	}
	return nil
}

// listed reports why objects cannot be listed yet. It asks once: an API server answers a new type with 404
// and then, while its storage fills, with 429 and a Retry-After of a second, for which a Kubernetes client
// sleeps although the storage is there in a tenth of that.
func listed(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("list %s: %w", url, err)
	}
	res, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("list %s: %s", url, res.Status)
	}
	return nil
}

func typeDefinitions() ([]*unstructured.Unstructured, error) {
	entries, err := config.CRDs.ReadDir("crd")
	if err != nil {
		return nil, fmt.Errorf("read built-in types: %w", err)
	}
	var out []*unstructured.Unstructured
	for _, e := range entries {
		data, err := config.CRDs.ReadFile("crd/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read built-in type: %w", err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &u.Object); err != nil {
			return nil, fmt.Errorf("built-in type %s: %w", e.Name(), err)
		}
		out = append(out, u)
	}
	return out, nil
}

// installRoles applies the ClusterRoles of people. What somebody changed in them is set back: who wants others
// makes roles of their own.
func installRoles(ctx context.Context, c client.Client) error {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(config.Roles)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		u := &unstructured.Unstructured{}
		if err == nil {
			err = yaml.Unmarshal(doc, &u.Object)
		}
		if err != nil {
			return fmt.Errorf("read built-in roles: %w", err)
		}
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
			return fmt.Errorf("install role %s: %w", u.GetName(), err)
		}
	}
}

// InfoConfigMap is where people's tools find the hub: keys "url" and "ca" (PEM), and "gatewayCA" (PEM), the
// authority of the sites' gateways, which vouches for them alone; and "revocationDelay", when a revoked
// member is not cut off at once.
const InfoConfigMap = "skerry-hub"

// publish writes where the hub is, readable by everybody whom the Kubernetes API knows.
func publish(ctx context.Context, c client.Client, o Options) error {
	info := map[string]string{"url": o.URL, "ca": string(o.CA)}
	if len(o.GatewayCA) > 0 {
		info["gatewayCA"] = string(o.GatewayCA)
	}
	if o.RevocationDelay > 0 {
		info["revocationDelay"] = o.RevocationDelay.String()
	}
	meta := metav1.ObjectMeta{Name: InfoConfigMap, Namespace: SystemNamespace}
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SystemNamespace}},
		&corev1.ConfigMap{ObjectMeta: meta, Data: info},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{InfoConfigMap}, Verbs: []string{"get"},
		}}},
		&rbacv1.RoleBinding{ObjectMeta: meta,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: InfoConfigMap},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:authenticated"}}},
	}
	for _, obj := range objects {
		err := c.Create(ctx, obj)
		if cm, ok := obj.(*corev1.ConfigMap); ok && apierrors.IsAlreadyExists(err) {
			cm.ResourceVersion = ""
			err = c.Update(ctx, cm)
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("publish the hub's address: %T %s: %w", obj, obj.GetName(), err)
		}
	}
	return nil
}
