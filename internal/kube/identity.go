package kube

import (
	"strings"

	"github.com/spf13/pflag"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
)

// Identity says how the API server learns who people are, beside client certificates and service accounts:
// by an OpenID Connect provider. The zero value means by nothing else.
type Identity struct {
	options *kubeoptions.BuiltInAuthenticationOptions
}

// authenticationConfigFlag names a file of kind AuthenticationConfiguration, for what the other flags cannot say.
const authenticationConfigFlag = "authentication-config"

// AddFlags adds kube-apiserver's own flags, with its names and words: what is written of them elsewhere holds.
func (i *Identity) AddFlags(fs *pflag.FlagSet) {
	i.options = kubeoptions.NewBuiltInAuthenticationOptions().WithOIDC()
	all := pflag.NewFlagSet("identity", pflag.ContinueOnError)
	i.options.AddFlags(all)
	all.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, "oidc-") || f.Name == authenticationConfigFlag {
			fs.AddFlag(f)
		}
	})
}

// apply puts what was said into the server's own options.
func (i *Identity) apply(to *kubeoptions.BuiltInAuthenticationOptions) {
	if i.options == nil {
		return
	}
	to.OIDC, to.AuthenticationConfigFile = i.options.OIDC, i.options.AuthenticationConfigFile
}
