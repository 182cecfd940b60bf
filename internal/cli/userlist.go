package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func newUserList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the users that were added, with their roles",
		Example: "  skerry user list",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.objects()
			if err != nil {
				return err
			}
			var accounts corev1.ServiceAccountList
			if err := c.List(cmd.Context(), &accounts, client.InNamespace(usersNamespace), client.HasLabels{labelUser}); err != nil {
				return fmt.Errorf("list users: %w", err)
			}
			roles, err := rolesOf(cmd.Context(), c)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(g.streams.Out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tROLES\tADDED")
			for i := range accounts.Items {
				a := &accounts.Items[i]
				fmt.Fprintf(w, "%s\t%s\t%s\n", a.Name, orDash(strings.Join(roles[a.Name], ", ")), a.CreationTimestamp.Local().Format("2006-01-02 15:04"))
			}
			return w.Flush()
		},
	}
}

// rolesOf returns each user's roles as ROLE@NAMESPACE, or ROLE alone where it holds everywhere.
func rolesOf(ctx context.Context, c client.Client) (map[string][]string, error) {
	var here rbacv1.RoleBindingList
	var everywhere rbacv1.ClusterRoleBindingList
	if err := errors.Join(c.List(ctx, &everywhere, client.HasLabels{labelUser}), c.List(ctx, &here, client.HasLabels{labelUser})); err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	out := map[string][]string{}
	add := func(labels map[string]string, ref rbacv1.RoleRef, namespace string) {
		role := strings.TrimPrefix(ref.Name, "skerry-")
		if namespace != "" {
			role += "@" + namespace
		}
		out[labels[labelUser]] = append(out[labels[labelUser]], role)
	}
	for _, b := range everywhere.Items {
		add(b.Labels, b.RoleRef, "")
	}
	for _, b := range here.Items {
		add(b.Labels, b.RoleRef, b.Namespace)
	}
	for _, roles := range out {
		slices.Sort(roles)
	}
	return out, nil
}

func newUserRemove(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Aliases: []string{"rm"},
		Short:   "Take a user's roles away and end their kubeconfigs",
		Example: "  skerry user remove ana",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := (userFlags{role: roleFleetAdmin, ttl: minUserTTL}).check(args[0]); err != nil {
				return Usage(err)
			}
			c, err := g.objects()
			if err != nil {
				return err
			}
			return g.removeUser(cmd.Context(), c, args[0])
		},
	}
}

func (g *globals) removeUser(ctx context.Context, c client.Client, name string) error {
	// The account goes first: with it every token ends, whatever becomes of the rest.
	err := c.Delete(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: usersNamespace, Name: name}})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove user %s: %w", name, err)
	}
	found := err == nil
	var here rbacv1.RoleBindingList
	var everywhere rbacv1.ClusterRoleBindingList
	theirs := client.MatchingLabels{labelUser: name}
	if err := errors.Join(c.List(ctx, &here, theirs), c.List(ctx, &everywhere, theirs)); err != nil {
		return fmt.Errorf("remove user %s: %w", name, err)
	}
	var errs []error
	for i := range here.Items {
		errs = append(errs, client.IgnoreNotFound(c.Delete(ctx, &here.Items[i])))
	}
	for i := range everywhere.Items {
		errs = append(errs, client.IgnoreNotFound(c.Delete(ctx, &everywhere.Items[i])))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove roles of user %s: %w", name, err)
	}
	if !found && len(here.Items)+len(everywhere.Items) == 0 {
		return Hint(fmt.Errorf("there is no user %s", name), "see `skerry user list`")
	}
	_, err = fmt.Fprintf(g.streams.Out, "user/%s removed\n", name)
	return err
}
