package kube

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strconv"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	generic "k8s.io/kubernetes/pkg/controlplane/apiserver/samples/generic/server"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
)

// issuer is the name in service account tokens. Nothing resolves it: the server itself verifies them.
const issuer = "https://kubernetes.default.svc"

// clusterName is the name of the API in certificates, beside its addresses.
const clusterName = "kubernetes.default.svc"

// authorities are those the API server trusts and is trusted by.
type authorities struct {
	// cluster signs the serving certificate and those of people.
	cluster *authority
	// proxy signs the certificate by which the server calls aggregated APIs. It must not be cluster: who
	// holds one of its certificates may speak for anybody.
	proxy *authority
}

// serverOptions says how the API server is to run, through Kubernetes' own options.
func serverOptions(o Options, etcd *etcdServer, certs pki, auths authorities, l net.Listener) (*options.Options, error) {
	s := generic.NewOptions()
	host, port, err := splitAddress(l.Addr().String())
	if err != nil {
		return nil, err
	}
	names := append([]string{"localhost", clusterName}, o.Names...)
	ips := append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, o.IPs...)
	if !host.IsUnspecified() {
		ips = append(ips, host)
	}
	serving, err := certs.leaf("apiserver", auths.cluster, pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth, names, ips)
	if err != nil {
		return nil, err
	}
	proxyClient, err := certs.leaf("front-proxy-client", auths.proxy, pkix.Name{CommonName: "front-proxy-client"}, x509.ExtKeyUsageClientAuth, nil, nil)
	if err != nil {
		return nil, err
	}
	tokenKey, err := certs.signingKey("service-account")
	if err != nil {
		return nil, err
	}
	encryption, err := encryptionConfig(certs.dir)
	if err != nil {
		return nil, err
	}

	s.SecureServing.Listener, s.SecureServing.BindAddress, s.SecureServing.BindPort = l, host, port
	s.SecureServing.ServerCert.CertKey.CertFile, s.SecureServing.ServerCert.CertKey.KeyFile = serving.cert, serving.key
	s.GenericServerRunOptions.AdvertiseAddress = net.IPv4(127, 0, 0, 1)
	s.GenericServerRunOptions.ExternalHost = "localhost"

	s.Etcd.StorageConfig.Transport.ServerList = []string{etcd.endpoint}
	s.Etcd.StorageConfig.Transport.TrustedCAFile = etcd.ca
	s.Etcd.StorageConfig.Transport.CertFile, s.Etcd.StorageConfig.Transport.KeyFile = etcd.client.cert, etcd.client.key
	s.Etcd.EncryptionProviderConfigFilepath = encryption

	s.Authentication.ClientCert.ClientCA = auths.cluster.certFile
	s.Authentication.RequestHeader.ClientCAFile = auths.proxy.certFile
	s.Authentication.RequestHeader.AllowedNames = []string{"front-proxy-client"}
	s.Authentication.RequestHeader.UsernameHeaders = []string{"X-Remote-User"}
	s.Authentication.RequestHeader.GroupHeaders = []string{"X-Remote-Group"}
	s.Authentication.RequestHeader.ExtraHeaderPrefixes = []string{"X-Remote-Extra-"}
	s.Authentication.ServiceAccounts.Issuers = []string{issuer}
	s.Authentication.ServiceAccounts.KeyFiles = []string{tokenKey}
	s.Authentication.ServiceAccounts.MaxExpiration = 0
	s.Authentication.ServiceAccounts.ExtendExpiration = false
	o.Identity.apply(s.Authentication)
	s.ServiceAccountSigningKeyFile = tokenKey
	s.ProxyClientCertFile, s.ProxyClientKeyFile = proxyClient.cert, proxyClient.key
	s.Authorization.Modes = []string{"RBAC"}
	return s, nil
}

func splitAddress(address string) (net.IP, int, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, 0, fmt.Errorf("address of the API server: %w", err)
	}
	ip := net.ParseIP(host)
	n, err := strconv.Atoi(port)
	if ip == nil || err != nil {
		return nil, 0, fmt.Errorf("address of the API server: %q is not IP:PORT", address)
	}
	return ip, n, nil
}

// newAggregator puts together the three servers that make up the API: custom resources, native types, and
// the aggregator in front of both.
func newAggregator(ctx context.Context, o *options.Options) (*aggregatorapiserver.APIAggregator, error) {
	completed, err := o.Complete(ctx, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("options of the API server: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("options of the API server: %w", errors.Join(errs...))
	}
	genericConfig, informers, storage, err := controlplaneapiserver.BuildGenericConfig(completed,
		[]*runtime.Scheme{legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme},
		controlplane.DefaultGenericAPIResourceConfigSource(), generatedopenapi.GetOpenAPIDefinitions)
	if err != nil {
		return nil, fmt.Errorf("configure the API server: %w", err)
	}
	genericConfig.EffectiveVersion = namedVersion{genericConfig.EffectiveVersion}
	resolver := webhook.NewDefaultServiceResolver()
	native, initializers, err := controlplaneapiserver.CreateConfig(completed, genericConfig, informers, storage, resolver, nil)
	if err != nil {
		return nil, fmt.Errorf("configure native types: %w", err)
	}
	authInfo := webhook.NewDefaultAuthenticationInfoResolverWrapper(native.ProxyTransport, native.Generic.EgressSelector, native.Generic.LoopbackClientConfig, native.Generic.TracerProvider)
	extensions, err := controlplaneapiserver.CreateAPIExtensionsConfig(*native.Generic, native.VersionedInformers, initializers, completed, 1, resolver, authInfo)
	if err != nil {
		return nil, fmt.Errorf("configure custom resources: %w", err)
	}
	aggregator, err := controlplaneapiserver.CreateAggregatorConfig(*native.Generic, completed, native.VersionedInformers, resolver, native.ProxyTransport, native.Extra.PeerProxy, initializers)
	if err != nil {
		return nil, fmt.Errorf("configure the aggregator: %w", err)
	}
	aggregator.ExtraConfig.DisableRemoteAvailableConditionController = true
	return chain(native, extensions, aggregator)
}

func chain(native *controlplaneapiserver.Config, extensions *apiextensionsapiserver.Config, aggregator *aggregatorapiserver.Config) (*aggregatorapiserver.APIAggregator, error) {
	nativeConfig, extensionsConfig := native.Complete(), extensions.Complete()
	notFound := notfoundhandler.New(native.Generic.Serializer, genericapifilters.NoMuxAndDiscoveryIncompleteKey)
	extensionsServer, err := extensionsConfig.New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, fmt.Errorf("make the server of custom resources: %w", err)
	}
	crds := extensions.GenericConfig.MergedResourceConfig.ResourceEnabled(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	nativeServer, err := nativeConfig.New("skerry", extensionsServer.GenericAPIServer)
	if err != nil {
		return nil, fmt.Errorf("make the server of native types: %w", err)
	}
	client, err := kubernetes.NewForConfig(native.Generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("make the server's own client: %w", err)
	}
	providers, err := nativeConfig.GenericStorageProviders(client.Discovery())
	if err != nil {
		return nil, fmt.Errorf("make storage of native types: %w", err)
	}
	if err := nativeServer.InstallAPIs(providers...); err != nil {
		return nil, fmt.Errorf("install native types: %w", err)
	}
	server, err := controlplaneapiserver.CreateAggregatorServer(aggregator.Complete(), nativeServer.GenericAPIServer,
		extensionsServer.Informers.Apiextensions().V1().CustomResourceDefinitions(), crds,
		controlplaneapiserver.DefaultGenericAPIServicePriorities())
	if err != nil {
		return nil, fmt.Errorf("make the aggregator: %w", err)
	}
	return server, nil
}
