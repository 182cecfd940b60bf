package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/cli/sitebatch"
	"github.com/skerry-dev/skerry/internal/enroll"
)

// importAtOneTime is how many Sites are written at one moment.
const importAtOneTime = 16

// maxImportTTL is the longest that the hub lets a token hold.
const maxImportTTL = 7 * 24 * time.Hour

type importFlags struct {
	ttl          time.Duration
	out          string
	installLines bool
	dryRun       bool
}

func newSiteImport(g *globals) *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Make many sites and their join tokens from a table",
		Long: "Make a site, and a join token for it, of each line of a table (CSV; - reads standard input). The first\n" +
			"line names the columns: name, and as wanted zone, fingerprint, labels (k=v;k=v) and label:KEY. The table\n" +
			"is checked whole before anything is made. Sites that are there get what the table says beside what they\n" +
			"have; a site that a machine has joined gets no token, so that the table can be imported again.\n\n" +
			"The tokens are written to a new file that only you can read; each lets one machine join its site, and a\n" +
			"fingerprint says which.",
		Example: "  skerry site import sites.csv --dry-run\n  skerry site import sites.csv --ttl 168h --out tokens.csv\n  skerry site import sites.csv --install-lines --out lines.csv",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.ttl < time.Second || f.ttl > maxImportTTL {
				return Usage(fmt.Errorf("--ttl %s: want 1s to %s", f.ttl, maxImportTTL))
			}
			return g.importSites(cmd.Context(), args[0], f)
		},
	}
	c.Flags().DurationVar(&f.ttl, "ttl", maxImportTTL, "how long the tokens may be used")
	c.Flags().StringVar(&f.out, "out", "tokens.csv", "new file for names and tokens (mode 0600), - for standard output")
	c.Flags().BoolVar(&f.installLines, "install-lines", false, "write, in place of each token, the line for a root shell that installs the agent and joins")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say what would be made")
	return c
}

func (g *globals) importSites(ctx context.Context, file string, f importFlags) error {
	table, err := g.readTable(file)
	if err != nil {
		return err
	}
	c, err := g.objects()
	if err != nil {
		return err
	}
	plan, err := planImport(ctx, c, table)
	if err != nil {
		return err
	}
	fmt.Fprintln(g.streams.ErrOut, plan.summary(f.dryRun))
	if f.dryRun {
		return plan.print(g.streams.Out)
	}
	hub, err := g.hub(ctx)
	if err != nil {
		return err
	}
	out, err := g.openTokens(f.out)
	if err != nil {
		return err
	}
	done := &counter{to: g.streams.ErrOut, live: liveTerminal(g.streams.ErrOut)}
	err = plan.makeSites(ctx, c, done)
	if err == nil {
		err = plan.makeTokens(ctx, hub, f, out, done)
	}
	done.end()
	if err = errors.Join(err, out.Close()); err != nil {
		return Hint(err, "sites that were made stay; say the same again, with another --out, for those that are missing")
	}
	if f.out != "-" {
		fmt.Fprintf(g.streams.ErrOut, "%d tokens are in %s and work until %s\n", len(plan.tokens), f.out, time.Now().Add(f.ttl).Format("2006-01-02 15:04 MST"))
	}
	return nil
}

func (g *globals) readTable(file string) ([]sitebatch.Site, error) {
	in := g.streams.In
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, Usage(fmt.Errorf("read table: %w", err))
		}
		defer opened.Close()
		in = opened
	}
	table, err := sitebatch.Read(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return table, nil
}

// openTokens makes the file for tokens. One that is there holds tokens that may be in use: it is never replaced.
func (g *globals) openTokens(path string) (io.WriteCloser, error) {
	if path == "-" {
		return nopCloser{g.streams.Out}, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, Hint(Usage(fmt.Errorf("--out %s: it is there already, and its tokens may be in use", path)), "name another file, or remove it")
	}
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	return file, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// importPlan is what an import makes.
type importPlan struct {
	create []*v1alpha1.Site
	update []siteChange
	same   int
	// tokens are the sites that get one; joined have a machine and get none.
	tokens []sitebatch.Site
	joined []string
}

type siteChange struct{ before, after *v1alpha1.Site }

// planImport compares the table with what is there. It changes nothing.
func planImport(ctx context.Context, c client.Client, table []sitebatch.Site) (*importPlan, error) {
	var list v1alpha1.SiteList
	if err := c.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	there := make(map[string]*v1alpha1.Site, len(list.Items))
	machines := map[string]string{}
	for i := range list.Items {
		s := &list.Items[i]
		there[s.Name] = s
		if s.Spec.Fingerprint != "" {
			machines[s.Spec.Fingerprint] = s.Name
		}
	}
	p := &importPlan{}
	for _, row := range table {
		if other, ok := machines[row.Fingerprint]; ok && other != string(row.Name) {
			return nil, fmt.Errorf("line %d, column fingerprint: the machine is that of site %s: %w", row.Line, other, sitebatch.ErrTable)
		}
		old := there[string(row.Name)]
		if old != nil && !old.DeletionTimestamp.IsZero() {
			return nil, fmt.Errorf("line %d, column name: site %s is being deleted: wait for it: %w", row.Line, row.Name, sitebatch.ErrTable)
		}
		p.add(row, old)
	}
	return p, nil
}

func (p *importPlan) add(row sitebatch.Site, old *v1alpha1.Site) {
	if old == nil {
		p.create = append(p.create, &v1alpha1.Site{
			ObjectMeta: metav1.ObjectMeta{Name: string(row.Name), Labels: row.Labels},
			Spec:       v1alpha1.SiteSpec{Zone: row.Zone, Fingerprint: row.Fingerprint},
		})
		p.tokens = append(p.tokens, row)
		return
	}
	after, changed := old.DeepCopy(), false
	for k, v := range sitebatch.Missing(old.Labels, row.Labels) {
		metav1.SetMetaDataLabel(&after.ObjectMeta, k, v)
		changed = true
	}
	for _, field := range []struct {
		to   *string
		want string
	}{{&after.Spec.Zone, row.Zone}, {&after.Spec.Fingerprint, row.Fingerprint}} {
		if field.want != "" && *field.to != field.want {
			*field.to, changed = field.want, true
		}
	}
	if changed {
		p.update = append(p.update, siteChange{old, after})
	} else {
		p.same++
	}
	if liveMember(old) != "" {
		p.joined = append(p.joined, old.Name)
	} else {
		p.tokens = append(p.tokens, row)
	}
}

// liveMember returns the member of a site that is not revoked; empty when there is none.
func liveMember(s *v1alpha1.Site) string {
	for _, m := range s.Status.Members {
		if !revoked(s, m.ID) {
			return m.ID
		}
	}
	return ""
}

func (p *importPlan) summary(dryRun bool) string {
	verb := ""
	if dryRun {
		verb = " (nothing is made: --dry-run)"
	}
	return fmt.Sprintf("%d sites to make, %d to change, %d as they are; %d tokens, none for %d sites that a machine has joined%s",
		len(p.create), len(p.update), p.same, len(p.tokens), len(p.joined), verb)
}

func (p *importPlan) print(out io.Writer) error {
	var b strings.Builder
	for _, s := range p.create {
		fmt.Fprintf(&b, "site/%s would be made\n", s.Name)
	}
	for _, s := range p.update {
		fmt.Fprintf(&b, "site/%s would be changed\n", s.after.Name)
	}
	for _, name := range p.joined {
		fmt.Fprintf(&b, "site/%s has a machine and gets no token\n", name)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// makeSites makes and changes Sites, some at one moment, and stops at the first that fails.
func (p *importPlan) makeSites(ctx context.Context, c client.Client, done *counter) error {
	var jobs []func(context.Context) error
	for _, s := range p.create {
		jobs = append(jobs, func(ctx context.Context) error {
			if err := c.Create(ctx, s); err != nil {
				return fmt.Errorf("make site %s: %w", s.Name, err)
			}
			return nil
		})
	}
	for _, change := range p.update {
		jobs = append(jobs, func(ctx context.Context) error {
			if err := c.Patch(ctx, change.after, client.MergeFrom(change.before)); err != nil {
				return fmt.Errorf("change site %s: %w", change.after.Name, err)
			}
			return nil
		})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, importAtOneTime)
	var wg sync.WaitGroup
	for _, job := range jobs {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := job(ctx); err != nil {
				cancel(err)
				return
			}
			done.add("sites", len(jobs), 1)
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// makeTokens asks the hub for tokens, many at once, and writes each answer before it asks for more.
func (p *importPlan) makeTokens(ctx context.Context, hub *hubclient.Client, f importFlags, to io.Writer, done *counter) error {
	column, line := "token", func(token string) string { return token }
	if f.installLines {
		digest, err := installerDigest(ctx, hub)
		if err != nil {
			return err
		}
		column, line = "install", func(token string) string { return installLine(hub, digest, token) }
	}
	out := csv.NewWriter(to)
	if err := out.Write([]string{"name", column}); err != nil {
		return fmt.Errorf("write tokens: %w", err)
	}
	for rest := p.tokens; len(rest) > 0; {
		batch := rest[:min(len(rest), enroll.MaxBatch)]
		rest = rest[len(batch):]
		request := enroll.TokensRequest{TTLSeconds: int(f.ttl.Seconds())}
		for _, s := range batch {
			request.Sites = append(request.Sites, enroll.TokenSite{Name: s.Name, Fingerprint: s.Fingerprint})
		}
		var answer enroll.TokensAnswer
		if err := hub.Post(ctx, enroll.PathTokens, request, &answer); err != nil {
			return err
		}
		if len(answer.Tokens) != len(batch) {
			return fmt.Errorf("%w: %d tokens for %d sites", hubclient.ErrHub, len(answer.Tokens), len(batch))
		}
		for i, s := range batch {
			_ = out.Write([]string{string(s.Name), line(answer.Tokens[i])}) // Error tells
		}
		out.Flush()
		if err := out.Error(); err != nil {
			return fmt.Errorf("write tokens: %w", err)
		}
		done.add("tokens", len(p.tokens), len(batch))
	}
	out.Flush()
	return out.Error()
}

// counter shows on a terminal how far something is. It is safe for concurrent use.
type counter struct {
	to   io.Writer
	live bool

	mu   sync.Mutex
	what string
	n    int
}

func (c *counter) add(what string, of, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.what != what {
		c.what, c.n = what, 0
	}
	c.n += n
	if c.live {
		fmt.Fprintf(c.to, "\r\x1b[K%s: %d of %d", what, c.n, of)
	}
}

func (c *counter) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live && c.n > 0 {
		fmt.Fprint(c.to, "\r\x1b[K")
	}
}

func liveTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}
