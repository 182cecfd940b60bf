package podsecurity

import (
	"strings"

	"k8s.io/pod-security-admission/policy"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

const (
	ruleUnreadable = "pod-unreadable"
	// prefix stands before the library's name of a check.
	prefix = "pod-security-"
)

// rule says of a check of the library what it does not say itself.
type rule struct {
	title, why, fix string
	// container and pod are the fields that the check reads, of a container and of the pod.
	container, pod [][]string
	// fails is what a container (indented by four) or a pod's spec (by two) has that the check finds fault with.
	failsContainer, failsPod string
	// without is a line of the pod that passes that is left out in the one that fails.
	without string
}

func fields(paths ...string) [][]string {
	var out [][]string
	for _, p := range paths {
		out = append(out, strings.Split(p, "."))
	}
	return out
}

// about returns what is said of a check; of one that the library brings anew, what holds for all.
func about(id string) rule {
	if r, ok := rules()[id]; ok {
		return r
	}
	return rule{title: "Pod Security: " + id, why: "The Pod Security Standards forbid it.", fix: "see the Pod Security Standards of Kubernetes"}
}

func rules() map[string]rule {
	return map[string]rule{
		"allowPrivilegeEscalation": {
			title: "A container may gain rights", why: "A program with the setuid bit in the image can become root.",
			fix:       "set securityContext.allowPrivilegeEscalation: false in the container",
			container: fields("securityContext.allowPrivilegeEscalation", "securityContext"), without: "allowPrivilegeEscalation: false",
		},
		"appArmorProfile": {
			title: "AppArmor is switched off", why: "The runtime's profile keeps a container from mounting and from writing to /proc and /sys.",
			fix:       "leave the profile out, or set type RuntimeDefault",
			container: fields("securityContext.appArmorProfile"), pod: fields("spec.securityContext.appArmorProfile", "metadata.annotations"),
			failsContainer: "      appArmorProfile: {type: Unconfined}\n",
		},
		"capabilities_baseline": {
			title: "A container adds capabilities", why: "Capabilities beyond the runtime's own let a container leave its box: SYS_ADMIN is close to root of the machine.",
			fix:       "remove it from securityContext.capabilities.add, or run the pod in a namespace for system workloads",
			container: fields("securityContext.capabilities.add"), failsContainer: "      capabilities: {add: [SYS_ADMIN]}\n",
		},
		"capabilities_restricted": {
			title: "A container keeps capabilities", why: "Most programs need none of the fourteen that a runtime gives them.",
			fix:       "set securityContext.capabilities.drop: [ALL] in the container, and add NET_BIND_SERVICE at most",
			container: fields("securityContext.capabilities", "securityContext"), without: "capabilities: {drop: [ALL]}",
		},
		"hostNamespaces": {
			title: "The pod shares a namespace with the machine", why: "It sees the machine's processes, or listens and connects as the machine does.",
			fix: "leave out hostNetwork, hostPID and hostIPC", pod: fields("spec.hostNetwork", "spec.hostPID", "spec.hostIPC"), failsPod: "  hostPID: true\n",
		},
		"hostPathVolumes": {
			title: "The pod mounts a directory of the machine", why: "Who writes to the machine's files can become root on it, and the pod is bound to what lies there.",
			fix: "use a volume of another kind", pod: fields("spec.volumes"), failsPod: "  volumes: [{name: logs, hostPath: {path: /var/log}}]\n",
		},
		"hostPorts": {
			title: "A container takes a port of the machine", why: "It goes around network policies, and only one such pod fits on a machine.",
			fix: "leave out hostPort and use a Service", container: fields("ports"), failsContainer: "    ports: [{containerPort: 80, hostPort: 80}]\n",
		},
		"hostProbesAndHostLifecycle": {
			title: "A probe or hook names a host", why: "The kubelet sends the request from the machine, to wherever the pod says.",
			fix: "leave out host, so that the pod itself is asked", container: fields("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"),
			failsContainer: "    livenessProbe: {httpGet: {host: 169.254.169.254, path: /, port: 80}}\n",
		},
		"privileged": {
			title: "A container is privileged", why: "It is root on the machine.",
			fix: "leave out securityContext.privileged, and add the one capability that is needed", container: fields("securityContext.privileged"),
			failsContainer: "      privileged: true\n",
		},
		"procMount": {
			title: "A container sees all of /proc", why: "What the runtime hides in /proc is what a container could harm the machine with.",
			fix: "leave out securityContext.procMount", container: fields("securityContext.procMount"), failsContainer: "      procMount: Unmasked\n",
		},
		"procMount_restricted": {
			title: "A container sees all of /proc", why: "The stricter level allows no exception, also not in a user namespace.",
			fix: "leave out securityContext.procMount", container: fields("securityContext.procMount"), failsContainer: "      procMount: Unmasked\n",
		},
		"restrictedVolumes": {
			title: "The pod has a volume of a kind that is not allowed", why: "Only kinds whose data the cluster manages are.",
			fix: "use configMap, csi, downwardAPI, emptyDir, ephemeral, persistentVolumeClaim, projected or secret", pod: fields("spec.volumes"),
			failsPod: "  volumes: [{name: data, nfs: {server: nfs.example.com, path: /}}]\n",
		},
		"runAsNonRoot": {
			title: "A container may run as root", why: "An image whose user is root, or changes to it in a later version, runs as root.",
			fix:       "set securityContext.runAsNonRoot: true in the pod",
			container: fields("securityContext.runAsNonRoot", "securityContext"), pod: fields("spec.securityContext.runAsNonRoot", "spec.securityContext"), without: "runAsNonRoot: true",
		},
		"runAsUser": {
			title: "A container runs as user 0", why: "User 0 is root.",
			fix:       "set another user, or leave it to the image",
			container: fields("securityContext.runAsUser"), pod: fields("spec.securityContext.runAsUser"), failsContainer: "      runAsUser: 0\n",
		},
		"seLinuxOptions": {
			title: "SELinux is loosened", why: "A user, role or unusual type of SELinux of its own takes a container out of its confinement.",
			fix:       "leave out seLinuxOptions.user and role, and use a container type",
			container: fields("securityContext.seLinuxOptions"), pod: fields("spec.securityContext.seLinuxOptions"), failsContainer: "      seLinuxOptions: {type: spc_t}\n",
		},
		"seccompProfile_baseline": {
			title: "Seccomp is switched off", why: "All calls of the kernel are open to the container.",
			fix:       "leave out Unconfined, or set type RuntimeDefault",
			container: fields("securityContext.seccompProfile"), pod: fields("spec.securityContext.seccompProfile", "metadata.annotations"),
			failsContainer: "      seccompProfile: {type: Unconfined}\n",
		},
		"seccompProfile_restricted": {
			title: "No seccomp profile is set", why: "Without one all calls of the kernel are open to the container, unless the kubelet sets a default.",
			fix:       "set securityContext.seccompProfile.type: RuntimeDefault in the pod",
			container: fields("securityContext.seccompProfile", "securityContext"), pod: fields("spec.securityContext.seccompProfile", "spec.securityContext"), without: "seccompProfile: {type: RuntimeDefault}",
		},
		"sysctls": {
			title: "The pod sets a kernel parameter", why: "Beyond a list of safe ones, parameters act on the whole machine.",
			fix: "remove it from spec.securityContext.sysctls", pod: fields("spec.securityContext.sysctls"), failsPod: "",
		},
		"windowsHostProcess": {
			title: "A container is a process of a Windows machine", why: "It has the rights of a user of the machine.",
			fix:       "leave out windowsOptions.hostProcess",
			container: fields("securityContext.windowsOptions.hostProcess"), pod: fields("spec.securityContext.windowsOptions.hostProcess"),
			failsContainer: "      windowsOptions: {hostProcess: true}\n",
		},
	}
}

// passing is a pod that every level lets run.
const passing = `apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  securityContext:
    runAsNonRoot: true
    seccompProfile: {type: RuntimeDefault}
  containers:
  - name: web
    image: registry.example.com/web:1.0.0
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
`

// fails returns a pod that differs from the passing one in what the check looks at.
func (r rule) fails(id string) string {
	out := passing
	if id == "sysctls" {
		return strings.Replace(out, "    runAsNonRoot", "    sysctls: [{name: kernel.msgmax, value: \"65536\"}]\n    runAsNonRoot", 1)
	}
	if r.without != "" {
		i := strings.Index(out, r.without)
		start, end := strings.LastIndex(out[:i], "\n")+1, i+strings.Index(out[i:], "\n")+1
		return out[:start] + out[end:]
	}
	if strings.Contains(r.failsContainer, "capabilities:") {
		out = strings.Replace(out, "      capabilities: {drop: [ALL]}\n", "", 1)
	}
	return strings.Replace(out, "  containers:\n", r.failsPod+"  containers:\n", 1) + r.failsContainer
}

// Rules implements check.Checker: those of all levels, whichever is checked.
func (c *Checker) Rules() []check.Rule {
	out := []check.Rule{{
		ID: ruleUnreadable, Title: "The pod cannot be read", Severity: check.Failure,
		Why:    "A field has a value of another type than the API's. The API server refuses the object, and the standards could not be checked.",
		Fails:  strings.Replace(passing, "name: web\n    image", "name: 5\n    image", 1),
		Passes: passing,
	}}
	for _, k := range policy.DefaultChecks() {
		r := about(string(k.ID))
		out = append(out, check.Rule{
			ID: prefix + string(k.ID), Title: r.title, Severity: check.Warning,
			Why: r.why, PodSecurity: string(k.Level), Fails: r.fails(string(k.ID)), Passes: passing,
		})
	}
	return out
}
