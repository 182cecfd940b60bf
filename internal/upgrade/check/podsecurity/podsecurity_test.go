package podsecurity_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/testenv"
	"github.com/skerry-dev/skerry/internal/upgrade/check"
	"github.com/skerry-dev/skerry/internal/upgrade/check/manifest"
	"github.com/skerry-dev/skerry/internal/upgrade/check/podsecurity"
)

// fixtures returns the folder of the library's own fixtures.
func fixtures(t *testing.T) string {
	t.Helper()
	testenv.Require(t, testenv.Tool("go"))
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/pod-security-admission").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "test", "testdata")
}

var number = regexp.MustCompile(`[0-9]+$`)

// TestConformance runs the fixtures of the library, each at its level and in its minor: what is to pass has no finding,
// what is to fail has one of the check that the file is named after.
func TestConformance(t *testing.T) {
	dir := fixtures(t)
	files, err := filepath.Glob(filepath.Join(dir, "*", "v1.*", "*", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	passed, failed, checks := 0, 0, map[string]bool{}
	for _, file := range files {
		rel, _ := filepath.Rel(dir, file)
		parts := strings.Split(rel, string(filepath.Separator))
		minor, err := strconv.Atoi(strings.TrimPrefix(parts[1], "v1."))
		if err != nil {
			t.Fatal(err)
		}
		found := checkFile(t, file, parts[0], minor)
		if parts[2] == "pass" {
			passed++
			if len(found) > 0 {
				t.Errorf("%s is to pass, and is found fault with: %v", rel, found)
			}
			continue
		}
		failed++
		id := number.ReplaceAllString(strings.TrimSuffix(parts[3], ".yaml"), "")
		checks[id] = true
		// At the restricted level a stricter check stands in for the one of the baseline.
		stricter := map[string]string{"capabilities_baseline": "capabilities_restricted", "seccompprofile_baseline": "seccompprofile_restricted",
			"hostpathvolumes": "restrictedvolumes", "procmount": "procmount_restricted"}[id]
		if !slices.ContainsFunc(found, func(f check.Finding) bool {
			got := strings.ToLower(strings.TrimPrefix(f.Rule, "pod-security-"))
			return got == id || (parts[0] == "restricted" && got == stricter)
		}) {
			t.Errorf("%s is to fail %s, and has only %v", rel, id, found)
		}
		for _, f := range found {
			if f.Line == 0 || f.Field == "" || f.Object == "" || f.Fix == "" || f.Severity != check.Failure {
				t.Errorf("%s: the finding lacks its place or fix: %+v", rel, f)
			}
		}
	}
	if passed < 900 || failed < 1000 || len(checks) < 17 {
		t.Errorf("only %d fixtures that pass and %d that fail, of %d checks, were found in %s", passed, failed, len(checks), dir)
	}
}

func checkFile(t *testing.T, file, level string, minor int) []check.Finding {
	t.Helper()
	in := manifest.Read([]string{file}, nil, manifest.DefaultLimits())
	if len(in.Objects) != 1 || len(in.Findings) != 0 {
		t.Fatalf("%s: %d objects, %v", file, len(in.Objects), in.Findings)
	}
	c, err := podsecurity.New(level, minor, check.Failure)
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(in.Objects)
}

func found(t *testing.T, text, level string) []check.Finding {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in := manifest.Read([]string{file}, nil, manifest.DefaultLimits())
	c, err := podsecurity.New(level, 36, check.Warning)
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(in.Objects)
}

// TestKindsWithPods finds a pod in each kind that makes some.
func TestKindsWithPods(t *testing.T) {
	const spec = "{hostPID: true, containers: [{name: a, image: a}]}"
	tests := []struct{ text, field, reason string }{
		{"apiVersion: v1\nkind: Pod\nspec: " + spec, "spec.hostPID", "a pod"},
		{"apiVersion: v1\nkind: PodTemplate\ntemplate: {spec: " + spec + "}", "template.spec.hostPID", "a template"},
		{"apiVersion: v1\nkind: ReplicationController\nspec: {template: {spec: " + spec + "}}", "spec.template.spec.hostPID", "of the core"},
		{"apiVersion: apps/v1\nkind: DaemonSet\nspec: {template: {spec: " + spec + "}}", "spec.template.spec.hostPID", "of apps"},
		{"apiVersion: extensions/v1beta1\nkind: Deployment\nspec: {template: {spec: " + spec + "}}", "spec.template.spec.hostPID", "of a version that is gone"},
		{"apiVersion: batch/v1\nkind: Job\nspec: {template: {spec: " + spec + "}}", "spec.template.spec.hostPID", "a job"},
		{"apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: " + spec + "}}}}", "spec.jobTemplate.spec.template.spec.hostPID", "a schedule"},
		{"apiVersion: example.com/v1\nkind: Deployment\nspec: {template: {spec: " + spec + "}}", "", "somebody else's Deployment"},
		{"apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1}", "", "a patch without a template"},
		{"apiVersion: v1\nkind: Service\nspec: " + spec, "", "no pods"},
	}
	for _, tt := range tests {
		got := found(t, tt.text, "baseline")
		if tt.field == "" && len(got) > 0 || tt.field != "" && (len(got) != 1 || got[0].Field != tt.field || got[0].Severity != check.Warning) {
			t.Errorf("%s: %v, want a finding at %q", tt.reason, got, tt.field)
		}
	}
}

// TestContainersAreToldApart names each container that breaks a rule, and the pod where it is the pod that does.
func TestContainersAreToldApart(t *testing.T) {
	const pod = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  initContainers:
  - {name: i, image: a}
  - name: j
    image: a
    securityContext: {privileged: true}
  containers:
  - {name: a, image: a}
  - name: b
    image: a
    securityContext: {privileged: true}
  ephemeralContainers:
  - {name: e, image: a, securityContext: {privileged: true}}
`
	var got []string
	for _, f := range found(t, pod, "baseline") {
		got = append(got, strconv.Itoa(f.Line)+" "+f.Field)
	}
	want := []string{"9 spec.initContainers[1].securityContext.privileged", "14 spec.containers[1].securityContext.privileged", "16 spec.ephemeralContainers[0].securityContext.privileged"}
	if !slices.Equal(got, want) {
		t.Errorf("found at %v, want %v", got, want)
	}
	of := found(t, "apiVersion: v1\nkind: Pod\nspec:\n  securityContext:\n    seccompProfile: {type: Unconfined}\n  containers: [{name: a, image: a}, {name: b, image: a}]\n", "baseline")
	if len(of) != 1 || of[0].Field != "spec.securityContext.seccompProfile" || of[0].Line != 5 {
		t.Errorf("what the pod says of all containers is found at %v", of)
	}
}

func TestPodsThatCannotBeRead(t *testing.T) {
	tests := []struct{ text, field, reason string }{
		{"apiVersion: v1\nkind: Pod\nspec: web", "spec", "no map"},
		{"apiVersion: v1\nkind: Pod\nspec: {hostPID: 'true'}", "spec.hostPID", "text in place of a boolean"},
		{"apiVersion: v1\nkind: Pod\nspec: {containers: {name: a}}", "spec.containers", "a map in place of a list"},
		{"apiVersion: v1\nkind: Pod\nspec: {containers: [{resources: {limits: {memory: much}}}]}", "spec", "no quantity"},
		{"apiVersion: v1\nkind: Pod\nmetadata: {annotations: [a]}\nspec: {containers: []}", "metadata.annotations", "no annotations"},
	}
	for _, tt := range tests {
		got := found(t, tt.text, "restricted")
		if len(got) != 1 || got[0].Rule != "pod-unreadable" || got[0].Field != tt.field || got[0].Severity != check.Failure || got[0].Line == 0 {
			t.Errorf("%s: %+v, want it unreadable at %s", tt.reason, got, tt.field)
		}
	}
}

func TestLevels(t *testing.T) {
	for _, level := range podsecurity.Levels() {
		if _, err := podsecurity.New(level, 36, check.Failure); err != nil {
			t.Errorf("%s: %v", level, err)
		}
	}
	for _, level := range []string{"", "Baseline", "strict"} {
		if _, err := podsecurity.New(level, 36, check.Failure); !errors.Is(err, podsecurity.ErrLevel) {
			t.Errorf("%q: %v, want ErrLevel", level, err)
		}
	}
	const worst = "apiVersion: v1\nkind: Pod\nspec: {hostPID: true, containers: [{name: a, securityContext: {privileged: true}}]}"
	if got := found(t, worst, "privileged"); len(got) > 0 {
		t.Errorf("level privileged forbids %v", got)
	}
	if b, r := len(found(t, worst, "baseline")), len(found(t, worst, "restricted")); b != 2 || r <= b {
		t.Errorf("baseline finds %d, restricted %d", b, r)
	}
}
