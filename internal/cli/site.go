package cli

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/cli/firstboot"
	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/sitecli/bootfile"
)

func newSite(g *globals, more []*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:     "site",
		Short:   "Let machines join, list sites, cut them off",
		Example: "  skerry site token shop-4 --label kind=shop\n  skerry site list\n  skerry site revoke shop-2",
		Args:    cobra.ArbitraryArgs,
		RunE:    GroupRun,
	}
	c.AddCommand(newSiteToken(g), newSiteImport(g), newSiteReplace(g), newSiteList(g), newSiteRevoke(g),
		newClaimCode(g), newClaims(g), newApprove(g), newDeny(g))
	c.AddCommand(more...)
	return c
}

func newSiteToken(g *globals) *cobra.Command {
	var pairs []string
	var ttl time.Duration
	var form tokenForm
	c := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a join token for one machine",
		Long: "Make a join token by which one machine may join as site NAME, once, and print it on one line.\n" +
			"The Site object is made when there is none. A machine that joins an existing site replaces\n" +
			"the one that was there.",
		Example: "  skerry site token shop-4 --label kind=shop\n  skerry site token shop-4 --install     # a line to paste as root on a machine that has nothing yet\n" +
			"  skerry site token shop-4 --config > skerry-site.yaml   # for a USB stick\n  skerry site token shop-4 --cloud-init > user-data\n  skerry-site run --join \"$(skerry site token shop-4)\" --data-dir /var/lib/skerry",
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := labelsOf(pairs)
			if err != nil {
				return err
			}
			name := fleet.SiteName(args[0])
			if err := name.Validate(); err != nil {
				return Usage(err)
			}
			if err := g.ensureSite(cmd.Context(), name, labels); err != nil {
				return err
			}
			return g.printToken(cmd.Context(), name, ttl, form)
		},
	}
	c.Flags().StringArrayVar(&pairs, "label", nil, "label KEY=VALUE of the site; may be given again")
	form.addFlags(c)
	c.Flags().DurationVar(&ttl, "ttl", 30*time.Minute, "how long the token may be used")
	return c
}

// tokenForm is how a token is printed.
type tokenForm struct{ install, config, cloudInit bool }

func (f *tokenForm) addFlags(c *cobra.Command) {
	c.Flags().BoolVar(&f.install, "install", false, "print a line for a root shell that fetches the agent from the hub, installs it and joins")
	f.addFileFlags(c)
	c.MarkFlagsMutuallyExclusive("install", "config", "cloud-init")
}

func (f *tokenForm) addFileFlags(c *cobra.Command) {
	c.Flags().BoolVar(&f.config, "config", false, "print a file for `skerry-site run --config`, a USB stick or an image")
	c.Flags().BoolVar(&f.cloudInit, "cloud-init", false, "print user-data with which cloud-init installs the agent from the hub and joins")
	c.MarkFlagsMutuallyExclusive("config", "cloud-init")
}

// printToken makes a token for a site and prints it on one line, or in another form.
func (g *globals) printToken(ctx context.Context, name fleet.SiteName, ttl time.Duration, form tokenForm) error {
	hub, err := g.hub(ctx)
	if err != nil {
		return err
	}
	var answer enroll.TokenAnswer
	path := strings.Replace(enroll.PathToken, "{site}", string(name), 1)
	if err := hub.Post(ctx, path, enroll.TokenRequest{TTLSeconds: int(ttl.Seconds())}, &answer); err != nil {
		return err
	}
	if form.install {
		digest, err := installerDigest(ctx, hub)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(g.streams.Out, installLine(hub, digest, answer.Token))
		return err
	}
	if form.config || form.cloudInit {
		about := fmt.Sprintf("Lets one machine join as site %s, once, until %s.", name, until(ttl))
		return g.printFile(ctx, hub, form, about, bootfile.File{Join: answer.Token, RemoveSecret: true})
	}
	_, err = fmt.Fprintln(g.streams.Out, answer.Token)
	return err
}

func until(ttl time.Duration) string { return time.Now().Add(ttl).UTC().Format("2006-01-02 15:04 MST") }

// printFile prints a file by which a machine joins with nobody at it.
func (g *globals) printFile(ctx context.Context, hub *hubclient.Client, form tokenForm, about string, f bootfile.File) error {
	write := firstboot.Config
	if form.cloudInit {
		digest, err := installerDigest(ctx, hub)
		if err != nil {
			return err
		}
		write = func(about string, f bootfile.File) ([]byte, error) {
			return firstboot.UserData(about, f, hub.URL+hubclient.PathInstaller, digest)
		}
	}
	text, err := write(about, f)
	if err != nil {
		return err
	}
	_, err = g.streams.Out.Write(text)
	return err
}

// installerDigest is the SHA-256, in hexadecimal digits, of the script that the hub hands to new machines.
func installerDigest(ctx context.Context, hub *hubclient.Client) (string, error) {
	script, err := hub.Raw(ctx, hubclient.PathInstaller)
	if err != nil {
		return "", fmt.Errorf("the hub's installer: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(script)), nil
}

// installLine is what a person pastes into a root shell of a new machine. The certificate of the hub means nothing
// to that machine yet, so the line carries the digest of the script that it runs.
func installLine(hub *hubclient.Client, digest, token string) string {
	return fmt.Sprintf(`curl -fsSk %s%s -o install.sh && echo "%s  install.sh" | sha256sum -c --quiet && sh install.sh %s`,
		hub.URL, hubclient.PathInstaller, digest, token)
}

// ensureSite makes the Site or adds labels to the one that is there.
func (g *globals) ensureSite(ctx context.Context, name fleet.SiteName, labels map[string]string) error {
	c, err := g.objects()
	if err != nil {
		return err
	}
	var site v1alpha1.Site
	err = c.Get(ctx, client.ObjectKey{Name: string(name)}, &site)
	if apierrors.IsNotFound(err) {
		site = v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: string(name), Labels: labels}}
		err = c.Create(ctx, &site)
		if err != nil {
			return fmt.Errorf("make site %s: %w", name, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read site %s: %w", name, err)
	}
	if len(labels) == 0 {
		return nil
	}
	before := site.DeepCopy()
	if site.Labels == nil {
		site.Labels = map[string]string{}
	}
	for k, v := range labels {
		site.Labels[k] = v
	}
	if err := c.Patch(ctx, &site, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("label site %s: %w", name, err)
	}
	return nil
}

func newSiteReplace(g *globals) *cobra.Command {
	var ttl time.Duration
	var form tokenForm
	var fingerprint string
	c := &cobra.Command{
		Use:   "replace NAME",
		Short: "Make a token for new hardware at a site that is there",
		Long: "Make a token by which a new machine takes the place of the one that site NAME has, and print it on one\n" +
			"line. The site keeps its name, labels and apps; the old machine goes on until the new one has joined, and\n" +
			"is then cut off for good. What the old machine kept on its disk does not move.\n\n" +
			"A site that is bound to a machine's fingerprint must be bound to the new one's: say --fingerprint.",
		Example: "  skerry site replace shop-4\n  skerry site replace shop-4 --install --ttl 24h\n  skerry site replace shop-4 --fingerprint 0123456789abcdef0123456789abcdef",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := fleet.SiteName(args[0])
			if err := name.Validate(); err != nil {
				return Usage(err)
			}
			if fingerprint != "" {
				if err := fleet.ValidateFingerprint(fingerprint); err != nil {
					return Usage(fmt.Errorf("--fingerprint: %w", err))
				}
			}
			if err := g.announceReplacement(cmd.Context(), name, fingerprint); err != nil {
				return err
			}
			return g.printToken(cmd.Context(), name, ttl, form)
		},
	}
	form.addFlags(c)
	c.Flags().DurationVar(&ttl, "ttl", 30*time.Minute, "how long the token may be used")
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "bind the site to the new machine, as skerry-site fingerprint prints it there")
	return c
}

// announceReplacement says which machine goes, and binds the site to the new one when a fingerprint is given. It
// makes no site: a name with a slip of the pen would become one.
func (g *globals) announceReplacement(ctx context.Context, name fleet.SiteName, fingerprint string) error {
	c, err := g.objects()
	if err != nil {
		return err
	}
	var site v1alpha1.Site
	err = c.Get(ctx, client.ObjectKey{Name: string(name)}, &site)
	if apierrors.IsNotFound(err) {
		return Hint(fmt.Errorf("there is no site %s whose hardware could be replaced", name), "`skerry site list` shows the sites; `skerry site token %s` makes a new one", name)
	}
	if err != nil {
		return fmt.Errorf("read site %s: %w", name, err)
	}
	before := site.DeepCopy()
	if fingerprint != "" && fingerprint != site.Spec.Fingerprint {
		site.Spec.Fingerprint = fingerprint
		if err := c.Patch(ctx, &site, client.MergeFrom(before)); err != nil {
			return fmt.Errorf("bind site %s: %w", name, err)
		}
	}
	old := "no machine: none has joined, or all are revoked"
	if id := liveMember(&site); id != "" {
		old = fmt.Sprintf("member %s", id)
		for _, m := range site.Status.Members {
			if m.ID == id && m.Fingerprint != "" {
				old += ", fingerprint " + m.Fingerprint
			}
		}
	}
	fmt.Fprintf(g.streams.ErrOut, "The machine that joins site %s with this token replaces %s.\n", name, old)
	if site.Spec.Fingerprint != "" {
		fmt.Fprintf(g.streams.ErrOut, "Only the machine with fingerprint %s may use it.\n", site.Spec.Fingerprint)
	}
	return nil
}

func revoked(s *v1alpha1.Site, id string) bool {
	for _, r := range s.Spec.RevokedMembers {
		if r == id {
			return true
		}
	}
	return false
}

func newSiteRevoke(g *globals) *cobra.Command {
	var member string
	c := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Cut a site's machines off, for good",
		Long: "Cut the machines of a site off: their credentials end at once and are never renewed. What runs\n" +
			"there goes on running. A machine comes back only with a new token (`skerry site token NAME`).",
		Example: "  skerry site revoke shop-2\n  skerry site revoke shop-2 --member m-7f3k",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := g.revoke(cmd.Context(), args[0], member)
			if err != nil {
				return err
			}
			cut := ""
			if hub, err := g.hub(cmd.Context()); err == nil && hub.RevocationDelay != "" {
				cut = ", cut off within " + hub.RevocationDelay + " (this bus cannot do it at once)"
			}
			_, err = fmt.Fprintf(g.streams.Out, "site/%s: %d members revoked%s\n", args[0], n, cut)
			return err
		},
	}
	c.Flags().StringVar(&member, "member", "", "only this member; default: all of them")
	return c
}

func (g *globals) revoke(ctx context.Context, name, member string) (int, error) {
	c, err := g.objects()
	if err != nil {
		return 0, err
	}
	n := 0
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n = 0
		var site v1alpha1.Site
		if err := c.Get(ctx, client.ObjectKey{Name: name}, &site); err != nil {
			return fmt.Errorf("read site: %w", err)
		}
		for _, m := range site.Status.Members {
			if (member == "" || m.ID == member) && !revoked(&site, m.ID) {
				site.Spec.RevokedMembers = append(site.Spec.RevokedMembers, m.ID)
				n++
			}
		}
		if n == 0 {
			return nil
		}
		return c.Update(ctx, &site)
	})
	if err != nil {
		return 0, fmt.Errorf("revoke members of site %s: %w", name, err)
	}
	if n == 0 && member != "" {
		return 0, fmt.Errorf("site %s has no member %q that is not revoked yet", name, member)
	}
	return n, nil
}
