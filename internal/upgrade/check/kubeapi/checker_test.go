package kubeapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
	"github.com/skerry-dev/skerry/internal/upgrade/check/kubeapi"
	"github.com/skerry-dev/skerry/internal/upgrade/check/manifest"
)

// found returns the findings of a text for a target as "line severity rule field".
func found(t *testing.T, minor, text string) []string {
	t.Helper()
	table, err := kubeapi.Load()
	if err != nil {
		t.Fatal(err)
	}
	target, err := table.Target(minor)
	if err != nil {
		t.Fatal(err)
	}
	in := manifest.Read([]string{manifest.Stdin}, strings.NewReader(text), manifest.DefaultLimits())
	if in.Unusable() {
		t.Fatal(in.Findings)
	}
	var out []string
	for _, f := range check.Run(in.Objects, kubeapi.New(table, target)) {
		out = append(out, fmt.Sprintf("%d %s %s %s", f.Line, f.Severity, f.Rule, f.Field))
		if f.Reason == "" || strings.HasSuffix(f.Reason, ".") {
			t.Errorf("the reason %q is no sentence without its full stop", f.Reason)
		}
	}
	return out
}

const (
	role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r}\nrules:\n"
	hook = "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nwebhooks:\n- rules:\n"
)

func TestRolesAndWebhooks(t *testing.T) {
	tests := []struct {
		text   string
		want   []string
		reason string
	}{
		{role + "- {apiGroups: [''], resources: [pods, pods/log], verbs: [get]}\n", nil, "what is served"},
		{role + "- {apiGroups: [extensions], resources: ['*'], verbs: [get]}\n", []string{"5 warning rbac-api-removed rules[0].apiGroups[0]"}, "a group of which nothing is left"},
		{role + "- {apiGroups: [policy], resources: ['*'], verbs: [get]}\n", nil, "a group of which something is left"},
		{role + "- {apiGroups: ['*'], resources: [podsecuritypolicies], verbs: [get]}\n", nil, "any group may be somebody else's"},
		{role + "- {apiGroups: [example.com], resources: [podsecuritypolicies], verbs: [get]}\n", nil, "somebody else's group"},
		{role + "- {apiGroups: [policy], resources: [unheard], verbs: [get]}\n", nil, "what was never there is not gone"},
		{role + "- apiGroups: [extensions, apps]\n  resources: [deployments, daemonsets/status]\n  verbs: [get]\n",
			[]string{"5 info rbac-api-removed rules[0].apiGroups[0]", "5 info rbac-api-removed rules[0].apiGroups[0]"}, "granted where they are now as well"},
		{role + "- {apiGroups: [extensions], resources: [ingresses], verbs: [get, list]}\n- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [get]}\n",
			[]string{"5 warning rbac-api-removed rules[0].apiGroups[0]"}, "granted with fewer verbs"},
		{role + "- {apiGroups: [extensions], resources: [ingresses], verbs: [get, list]}\n- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [get]}\n- {apiGroups: ['*'], resources: ['*'], verbs: [list]}\n",
			[]string{"5 info rbac-api-removed rules[0].apiGroups[0]"}, "granted by two rules together"},
		{role + "- {apiGroups: [extensions], resources: [ingresses/status], verbs: [get]}\n- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [get]}\n",
			[]string{"5 warning rbac-api-removed rules[0].apiGroups[0]"}, "a subresource is not its resource"},
		{role + "- {apiGroups: [extensions], resources: [ingresses/status], verbs: [get]}\n- {apiGroups: [networking.k8s.io], resources: ['*/status'], verbs: ['*']}\n",
			[]string{"5 info rbac-api-removed rules[0].apiGroups[0]"}, "that subresource of everything"},
		{role + "- {apiGroups: [extensions], resources: [ingresses], verbs: [get]}\n- {apiGroups: [networking.k8s.io], resources: [ingresses], resourceNames: [a], verbs: [get]}\n",
			[]string{"5 warning rbac-api-removed rules[0].apiGroups[0]"}, "granted for one object alone"},
		{role + "- nonResourceURLs: [/healthz]\n  verbs: [get]\n- 5\n- apiGroups: {a: b}\n  resources: x\n", nil, "rules of other kinds, and none"},
		{hook + "  - {apiGroups: [extensions], apiVersions: [v1beta1], resources: [deployments], operations: ['*']}\n", []string{"5 warning webhook-api-removed webhooks[0].rules[0].apiVersions"}, "never called"},
		{hook + "  - {apiGroups: [extensions, apps], apiVersions: ['*'], resources: [deployments], operations: ['*']}\n", nil, "called for some"},
		{hook + "  - {apiGroups: [apps], apiVersions: [v1beta2], resources: [deployments], operations: ['*']}\n", []string{"5 warning webhook-api-removed webhooks[0].rules[0].apiVersions"}, "a version that is gone"},
		{hook + "  - {apiGroups: ['*'], apiVersions: [v1beta2], resources: ['*'], operations: ['*']}\n", nil, "custom resources may have such a version"},
		{"apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nspec:\n  matchConstraints:\n    resourceRules:\n    - {apiGroups: [policy], apiVersions: [v1beta1], resources: [podsecuritypolicies]}\n",
			[]string{"6 warning webhook-api-removed spec.matchConstraints.resourceRules[0].apiVersions"}, "a policy"},
		{"apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nspec: {group: extensions, version: v1beta1}\n", []string{"3 warning apiservice-api-removed spec.version"}, "an APIService of the server's own"},
		{"apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nspec: {group: extensions, version: v1beta1, service: {name: x}}\n", nil, "an APIService of somebody else's server"},
		{"apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nspec: {group: metrics.k8s.io, version: v1beta1}\n", nil, "a group that is not Kubernetes' own"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, found(t, "1.36", tt.text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s%s", tt.reason, tt.text, diff)
		}
	}
}

func TestObjects(t *testing.T) {
	pdb := func(version string) string {
		return "apiVersion: policy/" + version + "\nkind: PodDisruptionBudget\nmetadata: {name: web}\n"
	}
	tests := []struct {
		minor, text string
		want        []string
		reason      string
	}{
		{"1.20", pdb("v1beta1"), nil, "before it was deprecated"},
		{"1.20", pdb("v1"), []string{"1 error api-too-new apiVersion"}, "before it came"},
		{"1.24", pdb("v1beta1"), []string{"1 warning api-deprecated apiVersion"}, "its last minor"},
		{"1.25", pdb("v1beta1"), []string{"1 error api-removed apiVersion"}, "gone"},
		{"1.25", pdb("v2"), []string{"1 warning api-unknown apiVersion"}, "never there"},
		{"1.28", "apiVersion: networking.k8s.io/v1alpha1\nkind: ClusterCIDR\n", []string{"1 warning api-off-by-default apiVersion"}, "only if switched on"},
		{"1.38", "apiVersion: resource.k8s.io/v1beta1\nkind: DeviceClass\n", []string{"0 warning kubernetes-partial ", "1 error api-removed apiVersion"}, "announced to go"},
		{"1.38", "apiVersion: resource.k8s.io/v1beta2\nkind: DeviceClass\n", []string{"0 warning kubernetes-partial ", "1 warning api-off-by-default apiVersion"}, "announced to go one later"},
		{"1.36", "apiVersion: v1\nkind: Config\nclusters: []\n", nil, "a kubeconfig is no object"},
		{"1.36", "apiVersion: example.com/v1beta1\nkind: Ingress\n", nil, "somebody else's"},
		{"1.36", "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nspec:\n  scaleTargetRef: {apiVersion: apps/v1beta2, kind: StatefulSet}\n  template:\n  - apiVersion: batch/v1beta1\n    kind: CronJob\n    spec: {x: {apiVersion: batch/v1, kind: Job}}\n",
			[]string{"4 error api-removed-reference spec.scaleTargetRef.apiVersion", "6 error api-removed-reference spec.template[0].apiVersion"}, "references of every kind"},
		{"1.36", "apiVersion: v1\nkind: Pod\na: [0, {apiVersion: batch/v1beta1, kind: CronJob}]\na: []\n", []string{"3 error api-removed-reference a[1].apiVersion"}, "a field that is there twice"},
		{"1.36", "apiVersion: [a]\nkind: Pod\nmetadata: {}\n---\napiVersion: v1\nkind: Pod\nspec: [{apiVersion: 1, kind: {}}]\n", nil, "fields of other types"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, found(t, tt.minor, tt.text)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s%s", tt.reason, tt.minor, tt.text, diff)
		}
	}
}

func TestDefinitions(t *testing.T) {
	const crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec:\n  group: example.com\n  names: {kind: Tide}\n  versions:\n"
	const both = crd + "  - {name: v1, served: true, storage: true}\n  - {name: v1beta1, served: false}\n"
	tests := []struct {
		text   string
		want   []string
		reason string
	}{
		{both + "---\napiVersion: example.com/v1\nkind: Tide\n", nil, "a served version"},
		{both + "---\napiVersion: example.com/v1beta1\nkind: Tide\n", []string{"10 error crd-version-not-served apiVersion"}, "one that is not served"},
		{both + "---\napiVersion: example.com/v2\nkind: Tide\n", []string{"10 error crd-version-not-served apiVersion"}, "one that there is not"},
		{both + "---\napiVersion: example.com/v2\nkind: Ebb\n", nil, "another kind"},
		{"apiVersion: example.com/v2\nkind: Tide\n---\n" + both, []string{"1 error crd-version-not-served apiVersion"}, "the definition comes later"},
		{crd + "  - {name: v1, served: true}\n", []string{"6 error crd-storage-version spec.versions"}, "none is stored"},
		{crd + "  - {name: v1, storage: true}\n  - {name: v2, storage: true}\n", []string{"6 error crd-storage-version spec.versions"}, "two are"},
		{"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {group: example.com}\n", nil, "a patch without versions"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, found(t, "1.36", tt.text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s%s", tt.reason, tt.text, diff)
		}
	}
}
