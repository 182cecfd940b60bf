package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

// usersNamespace holds the service account that stands for each user whom `skerry user add` made.
const usersNamespace = "skerry-users"

// labelUser is on a user's account and on every binding of it.
const labelUser = v1alpha1.Group + "/user"

// roles that a user can have; each is ClusterRole skerry-<role>.
var (
	namespacedRoles = []string{"viewer", "editor", "approver"}
	roleFleetAdmin  = "fleet-admin"
	roleSiteViewer  = "site-viewer"
)

// Bounds of how long a kubeconfig works.
const (
	defaultUserTTL = 30 * 24 * time.Hour
	minUserTTL     = 10 * time.Minute // the API server's own
	maxUserTTL     = 366 * 24 * time.Hour
)

func newUser(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:     "user",
		Short:   "Let people in, with a role, and out again",
		Example: "  skerry user add ana --role editor --namespace shop\n  skerry user list\n  skerry user remove ana",
		Args:    cobra.ArbitraryArgs,
		RunE:    GroupRun,
	}
	c.AddCommand(newUserAdd(g), newUserList(g), newUserRemove(g))
	return c
}

// userFlags are what a person says of a user to add.
type userFlags struct {
	role, server, file   string
	ttl                  time.Duration
	everywhere, seeSites bool
}

func newUserAdd(g *globals) *cobra.Command {
	var f userFlags
	c := &cobra.Command{
		Use:   "add NAME --role ROLE",
		Short: "Give somebody a role and write a kubeconfig that expires",
		Long: "Give somebody a role in a namespace, which is made when there is none, and write a kubeconfig for them.\n" +
			"Say it again to add a role, or for a new kubeconfig when the old one ends.\n\n" +
			"  viewer       sees apps, their logs and events, never Secrets\n" +
			"  editor       places apps and pushes bundles; reads and writes ConfigMaps and Secrets\n" +
			"  approver     sees apps, and approves releases that wait for a person\n" +
			"  fleet-admin  runs the fleet: sites, grants, users, every namespace",
		Example: "  skerry user add ana --role editor --namespace shop\n" +
			"  skerry user add ops --role fleet-admin --ttl 24h --file ops.kubeconfig\n" +
			"  skerry user add ben --role viewer --all-namespaces --see-sites",
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.addUser(cmd.Context(), args[0], f)
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.role, "role", "", "viewer, editor, approver or fleet-admin")
	fs.BoolVarP(&f.everywhere, "all-namespaces", "A", false, "the role holds in every namespace")
	fs.BoolVar(&f.seeSites, "see-sites", false, "may also see names, labels and state of all sites, to write placements")
	fs.DurationVar(&f.ttl, "ttl", defaultUserTTL, "how long the kubeconfig works")
	fs.StringVar(&f.server, "server", "", "URL of the Kubernetes API as the user reaches it (default: that of this kubeconfig)")
	fs.StringVar(&f.file, "file", "", "where to write the kubeconfig, - for standard output (default: NAME.kubeconfig)")
	return c
}

var userName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$`)

func (f userFlags) check(name string) error {
	switch {
	case name == "default": // every namespace has an account of that name, which stands for nobody
		return fmt.Errorf("user %q: choose another name", name)
	case !userName.MatchString(name):
		return fmt.Errorf("user %q: want at most 52 lower-case letters, digits and inner '-'", name)
	case f.role != roleFleetAdmin && !slices.Contains(namespacedRoles, f.role):
		return fmt.Errorf("--role %q: want %s or %s", f.role, strings.Join(namespacedRoles, ", "), roleFleetAdmin)
	case f.ttl < minUserTTL || f.ttl > maxUserTTL:
		return fmt.Errorf("--ttl %s: want %s to %s", f.ttl, minUserTTL, maxUserTTL)
	}
	return nil
}

func (g *globals) addUser(ctx context.Context, name string, f userFlags) error {
	if err := f.check(name); err != nil {
		return Usage(err)
	}
	namespace, err := g.namespace()
	if err != nil {
		return err
	}
	config, err := g.flags.ToRESTConfig()
	if err != nil {
		return Hint(fmt.Errorf("find the Kubernetes API: %w", err), "set KUBECONFIG as `skerry up` printed it")
	}
	c, err := g.objects()
	if err != nil {
		return err
	}
	u := user{name: name, client: c, say: func(format string, args ...any) { fmt.Fprintf(g.streams.ErrOut, format+"\n", args...) }}
	if err := u.bind(ctx, f, namespace); err != nil {
		return err
	}
	token, expires, err := u.token(ctx, f.ttl)
	if err != nil {
		return err
	}
	kubeconfig, err := userKubeconfig(config, name, namespace, token, f.server)
	if err != nil {
		return err
	}
	if f.file == "-" {
		_, err = g.streams.Out.Write(kubeconfig)
		return err
	}
	if f.file == "" {
		f.file = name + ".kubeconfig"
	}
	if err := writePrivate(f.file, kubeconfig); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	where := "namespace " + namespace
	if f.role == roleFleetAdmin || f.everywhere {
		where = "every namespace"
	}
	fmt.Fprintf(g.streams.Out, "user/%s is %s of %s; %s works until %s\n", name, f.role, where, f.file, expires.Local().Format("2006-01-02 15:04 MST"))
	if server, err := url.Parse(config.Host); err == nil && f.server == "" && net.ParseIP(server.Hostname()).IsLoopback() {
		u.say("It works on this machine alone, since %s is a loopback address: say --server for others.", config.Host)
	}
	return nil
}

// user is one whom a service account stands for.
type user struct {
	name   string
	client client.Client
	say    func(format string, args ...any)
}

func (u user) meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{labelUser: u.name}}
}

// bind makes the account and gives it the role.
func (u user) bind(ctx context.Context, f userFlags, namespace string) error {
	for _, ns := range []string{usersNamespace, namespace} {
		if f.role == roleFleetAdmin && ns == namespace {
			continue
		}
		made, err := u.ensure(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		if err != nil {
			return err
		}
		if made && ns == namespace {
			u.say("namespace/%s created", ns)
		}
	}
	objects := []client.Object{&corev1.ServiceAccount{ObjectMeta: u.meta(usersNamespace, u.name), AutomountServiceAccountToken: new(false)}}
	if f.role == roleFleetAdmin || f.everywhere {
		objects = append(objects, u.everywhere(f.role))
	} else {
		objects = append(objects, &rbacv1.RoleBinding{ObjectMeta: u.meta(namespace, u.bindingName(f.role)), RoleRef: roleRef(f.role), Subjects: u.subjects()})
	}
	if f.seeSites {
		objects = append(objects, u.everywhere(roleSiteViewer))
	}
	for _, obj := range objects {
		if _, err := u.ensure(ctx, obj); err != nil {
			return err
		}
	}
	return nil
}

func (u user) everywhere(role string) client.Object {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: u.meta("", u.bindingName(role)), RoleRef: roleRef(role), Subjects: u.subjects()}
}

func (u user) bindingName(role string) string { return "skerry:" + u.name + ":" + role }

func (u user) subjects() []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: usersNamespace, Name: u.name}}
}

func roleRef(role string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "skerry-" + role}
}

// ensure makes an object unless it is there.
func (u user) ensure(ctx context.Context, obj client.Object) (made bool, err error) {
	err = u.client.Create(ctx, obj)
	if apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("add user %s: %w", u.name, err)
	}
	return true, nil
}

func (u user) token(ctx context.Context, ttl time.Duration) (string, time.Time, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: usersNamespace, Name: u.name}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(ttl.Seconds()))}}
	if err := u.client.SubResource("token").Create(ctx, account, request); err != nil {
		return "", time.Time{}, fmt.Errorf("token for user %s: %w", u.name, err)
	}
	return request.Status.Token, request.Status.ExpirationTimestamp.Time, nil
}

// userKubeconfig is complete in itself and holds nothing of the identity that wrote it.
func userKubeconfig(config *rest.Config, name, namespace, token, server string) ([]byte, error) {
	config = rest.CopyConfig(config)
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	if server == "" {
		server = config.Host
	}
	const cluster = "skerry"
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{cluster: {
			Server: server, CertificateAuthorityData: config.CAData, TLSServerName: config.ServerName, InsecureSkipTLSVerify: config.Insecure,
		}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{cluster: {Cluster: cluster, AuthInfo: name, Namespace: namespace}},
		CurrentContext: cluster,
	})
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return data, nil
}

// writePrivate writes a file that its owner alone may read, also where a readable one was before.
func writePrivate(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = f.Chmod(0o600)
	if err == nil {
		_, err = f.Write(data)
	}
	return errors.Join(err, f.Close())
}
