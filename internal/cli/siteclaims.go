package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/sitecli/bootfile"
)

func newClaimCode(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:     "claim-code",
		Short:   "Make codes with which machines ask to become sites",
		Example: "  skerry site claim-code create --ttl 720h",
		Args:    cobra.ArbitraryArgs,
		RunE:    GroupRun,
	}
	c.AddCommand(newClaimCodeCreate(g))
	return c
}

func newClaimCodeCreate(g *globals) *cobra.Command {
	var request enroll.ClaimCodeRequest
	var ttl time.Duration
	var form tokenForm
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a claim code for all boxes of a fleet",
		Long: "Make a claim code and print it on one line. Any number of machines may ask with it; each waits until\n" +
			"somebody approves it for a site. The code gives nothing else: who steals it can make the queue longer, up\n" +
			"to --max. To withdraw it, delete Secret claim-ID of namespace skerry-system.",
		Example: "  skerry site claim-code create --ttl 720h --max 200\n  skerry site claim-code create --config > skerry-site.yaml   # one for all sticks or images\n  skerry-site run --claim skc1.… --data-dir /var/lib/skerry",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hub, err := g.hub(cmd.Context())
			if err != nil {
				return err
			}
			request.TTLSeconds = int(ttl.Seconds())
			var answer enroll.ClaimCodeAnswer
			if err := hub.Post(cmd.Context(), enroll.PathClaimCodes, request, &answer); err != nil {
				return err
			}
			fmt.Fprintf(g.streams.ErrOut, "claim code %s works until %s\n", answer.ID, time.Now().Add(ttl).Format("2006-01-02 15:04 MST"))
			if form.config || form.cloudInit {
				about := fmt.Sprintf("Lets machines ask, until %s, to become sites.", until(ttl))
				return g.printFile(cmd.Context(), hub, form, about, bootfile.File{Claim: answer.Code, RemoveSecret: true})
			}
			_, err = fmt.Fprintln(g.streams.Out, answer.Code)
			return err
		},
	}
	c.Flags().DurationVar(&ttl, "ttl", 30*24*time.Hour, "how long machines may ask with it, a minute to 366 days")
	form.addFileFlags(c)
	c.Flags().IntVar(&request.Max, "max", enroll.DefaultClaims, "how many claims it may have at one time, at most 10000")
	return c
}

func newClaims(g *globals) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "claims",
		Short:   "List machines that ask to become sites",
		Long:    "List machines that asked with a claim code and wait for somebody to approve or deny them.",
		Example: "  skerry site claims\n  skerry site claims --all",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			claims, err := g.claims(cmd.Context())
			if err != nil {
				return err
			}
			return printClaims(g.streams.Out, claims, all, time.Now())
		},
	}
	c.Flags().BoolVar(&all, "all", false, "those that were decided, too")
	return c
}

func (g *globals) claims(ctx context.Context) ([]v1alpha1.SiteClaim, error) {
	c, err := g.objects()
	if err != nil {
		return nil, err
	}
	var list v1alpha1.SiteClaimList
	if err := c.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.SiteClaim) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	return list.Items, nil
}

func printClaims(out io.Writer, claims []v1alpha1.SiteClaim, all bool, now time.Time) error {
	machines := map[string]int{}
	shown := claims[:0:0]
	for _, c := range claims {
		if f := c.Spec.Request.Fingerprint; f != "" {
			machines[f]++
		}
		if all || c.Spec.Decision == v1alpha1.ClaimPending {
			shown = append(shown, c)
		}
	}
	if len(shown) == 0 {
		_, err := fmt.Fprintln(out, "No machine waits. `skerry site claim-code create` makes a code with which machines ask.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CLAIM\tFINGERPRINT\tHOSTNAME\tARCH\tFROM\tDECISION\tSITE\tAGE")
	for _, c := range shown {
		r := c.Spec.Request
		fingerprint := orDash(r.Fingerprint)
		if machines[r.Fingerprint] > 1 {
			fingerprint += " (twice)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, fingerprint, orDash(r.Hostname), orDash(r.Arch), orDash(r.From),
			c.Spec.Decision, orDash(c.Spec.Site), duration.HumanDuration(now.Sub(c.CreationTimestamp.Time)))
	}
	return w.Flush()
}

// findClaim returns the claim of a name or of a machine's fingerprint.
func (g *globals) findClaim(ctx context.Context, what string) (*v1alpha1.SiteClaim, error) {
	claims, err := g.claims(ctx)
	if err != nil {
		return nil, err
	}
	return pickClaim(claims, what)
}

func pickClaim(claims []v1alpha1.SiteClaim, what string) (*v1alpha1.SiteClaim, error) {
	var found []string
	var last *v1alpha1.SiteClaim
	for i := range claims {
		switch {
		case claims[i].Name == what:
			return &claims[i], nil
		case what != "" && claims[i].Spec.Request.Fingerprint == what:
			found, last = append(found, claims[i].Name), &claims[i]
		}
	}
	switch len(found) {
	case 0:
		return nil, Hint(fmt.Errorf("there is no claim %q, nor one of a machine with that fingerprint", what), "`skerry site claims` shows them")
	case 1:
		return last, nil
	}
	return nil, Hint(fmt.Errorf("%d claims say that they are the machine %s: %s", len(found), what, strings.Join(found, ", ")),
		"look which is the real one (`skerry site claims`), and name the claim")
}

func newApprove(g *globals) *cobra.Command {
	var as string
	var pairs []string
	var replace bool
	c := &cobra.Command{
		Use:   "approve FINGERPRINT|CLAIM --as NAME",
		Short: "Let a machine that asks become a site",
		Long: "Let a machine that waits with a claim become site NAME, which is made when there is none. It joins\n" +
			"within two minutes. A site that has a machine keeps it unless --replace is given.",
		Example: "  skerry site approve 0123456789abcdef0123456789abcdef --as shop-4 --label kind=shop\n  skerry site approve c-0123456789abcdef --as shop-4 --replace",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := labelsOf(pairs)
			if err != nil {
				return err
			}
			name := fleet.SiteName(as)
			if err := name.Validate(); err != nil {
				return Usage(fmt.Errorf("--as: %w", err))
			}
			return g.approve(cmd.Context(), args[0], name, labels, replace)
		},
	}
	c.Flags().StringVar(&as, "as", "", "name of the site")
	c.Flags().StringArrayVar(&pairs, "label", nil, "label KEY=VALUE of the site; may be given again")
	c.Flags().BoolVar(&replace, "replace", false, "take the place of the machine that the site has")
	return c
}

func (g *globals) approve(ctx context.Context, what string, name fleet.SiteName, labels map[string]string, replace bool) error {
	claim, err := g.findClaim(ctx, what)
	if err != nil {
		return err
	}
	if claim.Status.Member != "" {
		return fmt.Errorf("claim %s has joined site %s already", claim.Name, claim.Spec.Site)
	}
	c, err := g.objects()
	if err != nil {
		return err
	}
	var site v1alpha1.Site
	err = c.Get(ctx, client.ObjectKey{Name: string(name)}, &site)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read site %s: %w", name, err)
	}
	if want := site.Spec.Fingerprint; want != "" && want != claim.Spec.Request.Fingerprint {
		return Hint(fmt.Errorf("site %s is bound to the machine %s, and claim %s is of %s", name, want, claim.Name, orDash(claim.Spec.Request.Fingerprint)),
			"change spec.fingerprint of the site first, when this machine is meant")
	}
	if id := liveMember(&site); id != "" && !replace {
		return Hint(fmt.Errorf("site %s has a machine, member %s", name, id), "add --replace to put the new one in its place; the old one is cut off")
	}
	if err := g.ensureSite(ctx, name, labels); err != nil {
		return err
	}
	before := claim.DeepCopy()
	claim.Spec.Decision, claim.Spec.Site, claim.Spec.Replace = v1alpha1.ClaimApproved, string(name), replace
	if err := decide(ctx, c, before, claim); err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.streams.Out, "siteclaim/%s approved for site/%s\n", claim.Name, name)
	return err
}

// decide writes a decision unless somebody else changed the claim meanwhile.
func decide(ctx context.Context, c client.Client, before, after *v1alpha1.SiteClaim) error {
	err := c.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return errors.Join(fmt.Errorf("claim %s changed meanwhile: look again", after.Name), err)
	}
	if err != nil {
		return fmt.Errorf("decide about claim %s: %w", after.Name, err)
	}
	return nil
}

func newDeny(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "deny FINGERPRINT|CLAIM",
		Short: "Refuse a machine that asks to become a site",
		Long: "Refuse a machine that waits with a claim. It asks again every quarter of an hour at most, and is refused\n" +
			"until the claim is approved after all, or deleted so that it may ask anew.",
		Example: "  skerry site deny c-0123456789abcdef",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			claim, err := g.findClaim(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if claim.Status.Member != "" {
				return Hint(fmt.Errorf("claim %s has joined site %s already", claim.Name, claim.Spec.Site), "`skerry site revoke %s` cuts it off", claim.Spec.Site)
			}
			c, err := g.objects()
			if err != nil {
				return err
			}
			before := claim.DeepCopy()
			claim.Spec.Decision, claim.Spec.Site, claim.Spec.Replace = v1alpha1.ClaimDenied, "", false
			if err := decide(cmd.Context(), c, before, claim); err != nil {
				return err
			}
			_, err = fmt.Fprintf(g.streams.Out, "siteclaim/%s denied\n", claim.Name)
			return err
		},
	}
}
