package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	cacheddiscovery "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

// Periods and workers of the controllers: an API that serves a hub changes rarely.
const (
	resync        = 12 * time.Hour
	discoverEvery = 30 * time.Second
	workers       = 2
)

// runControllers runs what an API without a controller manager lacks: namespaces that are deleted go with
// all they hold, owned objects go with their owner, each namespace has a default service account, and
// cluster roles aggregate. It returns when ctx ends and all of them have ended.
func runControllers(ctx context.Context, config *rest.Config) error {
	ctx = klog.NewContext(ctx, klog.Background())
	config = rest.AddUserAgent(config, "controllers")
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("metadata client: %w", err)
	}
	shared := informers.NewSharedInformerFactory(client, resync)
	var wg sync.WaitGroup
	namespaces := namespace.NewNamespaceController(ctx, client, meta, client.Discovery().ServerPreferredNamespacedResources,
		shared.Core().V1().Namespaces(), resync, v1.FinalizerKubernetes)
	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), shared.Core().V1().ServiceAccounts(),
		shared.Core().V1().Namespaces(), client, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return fmt.Errorf("service accounts: %w", err)
	}
	roles := clusterroleaggregation.NewClusterRoleAggregation(shared.Rbac().V1().ClusterRoles(), client.RbacV1())
	collect, err := newCollector(ctx, client, meta, shared)
	if err != nil {
		return err
	}
	shared.Start(ctx.Done())
	wg.Go(func() { namespaces.Run(ctx, workers) })
	wg.Go(func() { accounts.Run(ctx, workers) })
	wg.Go(func() { roles.Run(ctx, workers) })
	wg.Go(func() { collect(ctx) })
	wg.Wait()
	shared.Shutdown()
	return nil
}

// newCollector makes the garbage collector and returns what runs it.
func newCollector(ctx context.Context, client kubernetes.Interface, metaClient metadata.Interface, shared informers.SharedInformerFactory) (func(context.Context), error) {
	cached := cacheddiscovery.NewMemCacheClient(client.Discovery())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	objects := informerfactory.NewInformerFactory(shared, metadatainformer.NewSharedInformerFactory(metaClient, resync))
	started := make(chan struct{})
	close(started)
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, metaClient, resettable{mapper}, garbagecollector.DefaultIgnoredResources(), objects, started)
	if err != nil {
		return nil, fmt.Errorf("garbage collector: %w", err)
	}
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		wg.Go(func() { collector.Run(ctx, workers, discoverEvery) })
		wg.Go(func() { collector.Sync(ctx, client.Discovery(), discoverEvery) })
		wg.Wait()
	}, nil
}

// resettable lets the collector forget what it learnt of the API's kinds, so that new ones are seen.
type resettable struct {
	*restmapper.DeferredDiscoveryRESTMapper
}

var _ meta.ResettableRESTMapper = resettable{}
