package checkcli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// errUsage marks what the verb calls the person's own mistake.
var errUsage = errors.New("usage")

// checked runs the verb and returns what it printed.
func checked(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := New(Env{In: strings.NewReader(stdin), Out: &out, Version: "1.2.3", Usage: func(err error) error {
		if err == nil {
			return nil
		}
		return errors.Join(errUsage, err)
	}})
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(io.Discard)
	c.SetArgs(args)
	err := c.Execute()
	return out.String(), err
}

// findings runs the verb on standard input and returns what was found.
func findings(t *testing.T, stdin string, args ...string) []check.Finding {
	t.Helper()
	out, err := checked(t, stdin, append([]string{"-", "-o", "json"}, args...)...)
	if err != nil && !errors.Is(err, ErrFindings) && !errors.Is(err, errUnusable) {
		t.Fatal(err)
	}
	var got struct {
		Findings []struct {
			check.Finding
			Severity string `json:"severity"`
		} `json:"findings"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var list []check.Finding
	for _, f := range got.Findings {
		if f.Finding.Severity, err = check.ParseSeverity(f.Severity); err != nil {
			t.Fatal(err)
		}
		list = append(list, f.Finding)
	}
	return list
}

// TestExamplesOfRules holds every rule to find fault with its own bad example, and not with its good one.
func TestExamplesOfRules(t *testing.T) {
	rules, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range rules {
		if seen[r.ID] || r.Title == "" || r.Why == "" || r.Fails == "" || !strings.HasSuffix(r.Why, ".") {
			t.Errorf("rule %s is there twice, or says too little", r.ID)
		}
		seen[r.ID] = true
		args := []string{"--pod-security", cmp.Or(r.PodSecurity, "restricted")}
		if r.Kubernetes != "" {
			args = append(args, "--kubernetes", r.Kubernetes)
		}
		is := func(f check.Finding) bool { return f.Rule == r.ID }
		bad := findings(t, r.Fails, args...)
		i := slices.IndexFunc(bad, is)
		switch {
		case i < 0:
			t.Errorf("rule %s finds nothing in\n%s\nbut %v", r.ID, r.Fails, bad)
		case bad[i].Line == 0 && r.ID != "kubernetes-partial":
			t.Errorf("rule %s names no line: %+v", r.ID, bad[i])
		}
		if strings.Contains(r.Fails, "name: 5") {
			continue
		}
		for _, f := range bad {
			// A pod that the baseline forbids is forbidden by its stricter sibling too.
			if !is(f) && !strings.HasPrefix(r.ID, "pod-security-") {
				t.Errorf("the example of rule %s is an example of %s as well: %s", r.ID, f.Rule, f.Reason)
			}
		}
		if r.Passes == "" {
			continue
		}
		if good := findings(t, r.Passes, args...); len(good) > 0 {
			t.Errorf("the good example of rule %s is found fault with: %v", r.ID, good)
		}
	}
	if len(rules) < 30 {
		t.Errorf("only %d rules", len(rules))
	}
}

const (
	gone      = "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: web}\n"
	good      = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
	hostPort  = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: web\n    ports: [{containerPort: 80, hostPort: 80}]\n"
	roleBoth  = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r}\nrules:\n- apiGroups: [extensions, networking.k8s.io]\n  resources: [ingresses/status]\n  verbs: [get]\n"
	optedIn   = "apiVersion: networking.k8s.io/v1alpha1\nkind: ClusterCIDR\nmetadata: {name: c}\n"
	unusable  = "apiVersion: v1\nkind: [\n"
	unchecked = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
)

func TestExitStatus(t *testing.T) {
	tests := []struct {
		stdin  string
		args   []string
		found  bool
		usage  bool
		reason string
	}{
		{good, nil, false, false, "nothing is wrong"},
		{gone, nil, true, false, "an API that is gone is an error"},
		{gone, []string{"--kubernetes", "1.24"}, false, false, "it was deprecated then, which is a warning"},
		{gone, []string{"--kubernetes", "1.24", "--fail-on", "warning"}, true, false, "which can be asked to fail"},
		{gone, []string{"--fail-on", "never"}, false, false, "only look"},
		{hostPort, nil, false, false, "Pod Security by default warns"},
		{hostPort, []string{"--pod-security", "baseline"}, true, false, "and fails when it was asked for"},
		{hostPort, []string{"--pod-security", "privileged", "--fail-on", "info"}, false, false, "or is left out"},
		{roleBoth, []string{"--fail-on", "warning"}, false, false, "a right that is granted for the newer group as well is only a remark"},
		{roleBoth, []string{"--fail-on", "info"}, true, false, "on which one may fail"},
		{optedIn, []string{"--kubernetes", "1.28"}, false, false, "what must be switched on is a warning"},
		{good, []string{"--kubernetes", "1.40", "--fail-on", "warning"}, true, false, "a minor of which little is known is never safe"},
		{unchecked, []string{"--fail-on", "warning"}, true, false, "nor is what was not checked"},
		{unusable, []string{"--fail-on", "never"}, false, true, "what cannot be read is the input's fault, whatever makes it fail"},
		{gone + "---\n" + unusable, nil, false, true, "beside findings too"},
		{good, []string{"--kubernetes", "1.99"}, false, true, "an unknown minor"},
		{good, []string{"--kubernetes", "36"}, false, true, "no version"},
		{good, []string{"--pod-security", "strict"}, false, true, "no level"},
		{good, []string{"--fail-on", "fatal"}, false, true, "no severity"},
		{good, []string{"-o", "html"}, false, true, "no form"},
	}
	for _, tt := range tests {
		out, err := checked(t, tt.stdin, append([]string{"-"}, tt.args...)...)
		if errors.Is(err, ErrFindings) != tt.found || errors.Is(err, errUsage) != tt.usage || (err == nil) != (!tt.found && !tt.usage) {
			t.Errorf("%v: %v, want found %v, usage %v: %s\n%s", tt.args, err, tt.found, tt.usage, tt.reason, out)
		}
	}
	if out, _ := checked(t, gone+"---\n"+unusable, "-"); !strings.Contains(out, "api-removed") || !strings.Contains(out, "input-unusable") {
		t.Errorf("what was found is not told beside what cannot be read:\n%s", out)
	}
}

// TestPlaces names the places of findings of every kind in one tree.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/tree")); err != nil {
		t.Fatal(err)
	}
	out, err := checked(t, "", dir, "--kubernetes", "1.36")
	if !errors.Is(err, ErrFindings) {
		t.Fatal(err)
	}
	out = strings.ReplaceAll(out, dir+string(filepath.Separator), "")
	want, err := os.ReadFile("testdata/tree.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), out); diff != "" {
		t.Errorf("the report of testdata/tree is not that of testdata/tree.txt (-want +got):\n%s", diff)
	}
}

// FuzzCheck holds every rule and every form of output to take whatever is well-formed.
func FuzzCheck(f *testing.F) {
	rules, err := Rules()
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range rules {
		f.Add(r.Fails)
	}
	f.Add("apiVersion: v1\nkind: Pod\nspec: {containers: [null, 5, {name: a, ports: x}], volumes: [{}]}\n")
	f.Add("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nrules: [{apiGroups: [[]], resources: {}}, null]\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, form := range []string{"table", "json", "junit"} {
			out, err := checked(t, text, "-", "--pod-security", "restricted", "--kubernetes", "1.40", "-o", form)
			if err != nil && !errors.Is(err, ErrFindings) && !errors.Is(err, errUnusable) {
				t.Errorf("%v", err)
			}
			if out == "" {
				t.Error("nothing was printed")
			}
		}
	})
}
