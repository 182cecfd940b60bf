package kubeapi

import "github.com/skerry-dev/skerry/internal/upgrade/check"

const (
	rulePartial    = "kubernetes-partial"
	ruleRemoved    = "api-removed"
	ruleReference  = "api-removed-reference"
	ruleOptIn      = "api-off-by-default"
	ruleDeprecated = "api-deprecated"
	ruleTooNew     = "api-too-new"
	ruleUnknown    = "api-unknown"
	ruleRBAC       = "rbac-api-removed"
	ruleWebhook    = "webhook-api-removed"
	ruleService    = "apiservice-api-removed"
	ruleCRDVersion = "crd-version-not-served"
	ruleCRDStorage = "crd-storage-version"
)

// Rules implements check.Checker.
func (c *Checker) Rules() []check.Rule {
	return []check.Rule{
		{
			ID: rulePartial, Title: "Not all is known of the target", Severity: check.Warning,
			Why: "Of a minor that was not released when this table was made, only what is announced is known. Findings are right as far as it comes as announced; " +
				"that nothing is found does not mean that it is safe.",
			Fails: configMap, Kubernetes: name(c.table.newest() + 1),
		},
		{
			ID: ruleRemoved, Title: "The API is gone", Severity: check.Failure,
			Why: "The API server refuses such an object, and a chart or a GitOps tool that still holds it fails as a whole. Where a newer version " +
				"is named, objects that exist are served under it; what is written down has to change, at times by more than its version.",
			Fails:  "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata:\n  name: web\nspec:\n  minAvailable: 1\n",
			Passes: "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: web\nspec:\n  minAvailable: 1\n",
		},
		{
			ID: ruleReference, Title: "A field names an API that is gone", Severity: check.Failure,
			Why:    "What a scaler scales, an owner, or a template is looked up by version and kind. The object is accepted, and does not work.",
			Fails:  scaler + "    apiVersion: extensions/v1beta1\n    kind: Deployment\n    name: web\n  maxReplicas: 3\n",
			Passes: scaler + "    apiVersion: apps/v1\n    kind: Deployment\n    name: web\n  maxReplicas: 3\n",
		},
		{
			ID: ruleOptIn, Title: "The API is off by default", Severity: check.Warning,
			Why: "Alpha APIs, and beta ones since 1.24, are served only if the API server is started with `--runtime-config`. Managed clusters rarely are. Feature gates, " +
				"which some need beside it, are not known to the table.",
			Fails:  "apiVersion: resource.k8s.io/v1beta2\nkind: DeviceClass\nmetadata:\n  name: gpu\n",
			Passes: "apiVersion: resource.k8s.io/v1\nkind: DeviceClass\nmetadata:\n  name: gpu\n",
		},
		{
			ID: ruleDeprecated, Title: "The API is deprecated", Severity: check.Warning,
			Why:    "It still works. Its authors have said when it goes, or that something better is there.",
			Fails:  "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata:\n  name: web\n",
			Passes: "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: web\n", Kubernetes: "1.24",
		},
		{
			ID: ruleTooNew, Title: "The API comes with a later minor", Severity: check.Failure,
			Why: "The API server of the target refuses it.", Kubernetes: "1.29",
			Fails:  "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata:\n  name: names\n",
			Passes: "apiVersion: flowcontrol.apiserver.k8s.io/v1\nkind: FlowSchema\nmetadata:\n  name: shop\n",
		},
		{
			ID: ruleUnknown, Title: "No Kubernetes has this kind", Severity: check.Warning,
			Why:    "The group is Kubernetes' own, and no known minor has the kind in this version: mostly a slip of the pen.",
			Fails:  "apiVersion: apps/v1\nkind: Deploymnet\nmetadata:\n  name: web\n",
			Passes: "apiVersion: example.com/v1\nkind: Deploymnet\nmetadata:\n  name: web\n",
		},
		{
			ID: ruleRBAC, Title: "A role grants rights to an API that is gone", Severity: check.Warning,
			Why: "A rule of a Role or ClusterRole that names a group and resource that are not served grants nothing. Who relied on it is refused after the upgrade. Where the " +
				"role grants the newer one as well, the finding is of severity info.",
			Fails:  role + "  - apiGroups: [extensions]\n    resources: [ingresses]\n    verbs: [get, list, watch]\n",
			Passes: role + "  - apiGroups: [networking.k8s.io]\n    resources: [ingresses]\n    verbs: [get, list, watch]\n",
		},
		{
			ID: ruleWebhook, Title: "A webhook or admission policy matches only APIs that are gone", Severity: check.Warning,
			Why:    "Such a rule never matches. What it was to refuse or to change is let pass, in silence.",
			Fails:  webhook + "      - apiGroups: [extensions]\n        apiVersions: [v1beta1]\n        resources: [ingresses]\n        operations: [CREATE]\n",
			Passes: webhook + "      - apiGroups: [networking.k8s.io]\n        apiVersions: [v1beta1, v1]\n        resources: [ingresses]\n        operations: [CREATE]\n",
		},
		{
			ID: ruleService, Title: "An APIService stands for an API that is gone", Severity: check.Warning,
			Why:    "An APIService without a service says that the API server itself serves the version. It makes and removes these itself.",
			Fails:  apiService + "  name: v1beta1.policy\nspec:\n  group: policy\n  version: v1beta1\n  groupPriorityMinimum: 16000\n  versionPriority: 9\n",
			Passes: apiService + "  name: v1.policy\nspec:\n  group: policy\n  version: v1\n  groupPriorityMinimum: 16000\n  versionPriority: 15\n",
		},
		{
			ID: ruleCRDVersion, Title: "A custom object is of a version that its definition does not serve", Severity: check.Failure,
			Why:    "The definition stands in the same input, and says which versions are served. The API server refuses others.",
			Fails:  crd + "    - {name: v1alpha1, served: false, storage: false}\n    - {name: v1, served: true, storage: true}\n" + tide + "v1alpha1\n" + tideRest,
			Passes: crd + "    - {name: v1alpha1, served: false, storage: false}\n    - {name: v1, served: true, storage: true}\n" + tide + "v1\n" + tideRest,
		},
		{
			ID: ruleCRDStorage, Title: "A definition has not one stored version", Severity: check.Failure,
			Why:    "The API server refuses a CustomResourceDefinition in which none or several versions are stored.",
			Fails:  crd + "    - {name: v1alpha1, served: true, storage: true}\n    - {name: v1, served: true, storage: true}\n",
			Passes: crd + "    - {name: v1alpha1, served: true, storage: false}\n    - {name: v1, served: true, storage: true}\n",
		},
	}
}

// Beginnings of examples.
const (
	configMap  = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n"
	scaler     = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: web\nspec:\n  scaleTargetRef:\n"
	role       = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: reader\nrules:\n"
	webhook    = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata:\n  name: hosts\nwebhooks:\n  - name: hosts.example.com\n    rules:\n"
	apiService = "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata:\n"
	crd        = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: tides.example.com\nspec:\n  group: example.com\n" +
		"  names: {kind: Tide, plural: tides}\n  scope: Namespaced\n  versions:\n"
	tide     = "---\napiVersion: example.com/"
	tideRest = "kind: Tide\nmetadata:\n  name: spring\n"
)
