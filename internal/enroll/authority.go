package enroll

// PathAuthorities is where people ask the hub for its authorities (GET) and take a step of their rotation (POST). It
// needs the right to get or update this path in the Kubernetes API, which cluster administrators have.
const PathAuthorities = "/view/v1/authorities"

// States of an authority.
const (
	AuthorityInUse    = "in use"   // the hub serves and signs with it
	AuthorityNext     = "next"     // sites learn it; nothing is signed with it yet
	AuthorityPrevious = "previous" // nothing is signed with it any more; what it signed is still taken
)

// Steps of a rotation.
const (
	StepAdd  = "add"
	StepUse  = "use"
	StepDrop = "drop"
)

// Authority is one of the hub's certificate authorities.
type Authority struct {
	// Digest is the SHA-256 of its certificate (DER) in hexadecimal digits.
	Digest string `json:"digest"`
	State  string `json:"state"`
	// NotBefore and NotAfter are seconds since 1970.
	NotBefore int64 `json:"notBefore"`
	NotAfter  int64 `json:"notAfter"`
	// Known and Unknown name the sites whose machine says that it trusts it, and those whose machine does not say so.
	Known   []string `json:"known"`
	Unknown []string `json:"unknown"`
	// Signed names the sites whose machine shows a certificate of it.
	Signed []string `json:"signed"`
}

// AuthorityStep asks for a step.
type AuthorityStep struct {
	// Step is one of the Step constants.
	Step string `json:"step"`
	// Force takes the step although it cuts sites off.
	Force bool `json:"force,omitempty"`
}

// AuthoritiesAnswer answers both.
type AuthoritiesAnswer struct {
	Authorities []Authority `json:"authorities"`
	// CutOff names the sites that the step cut off.
	CutOff []string `json:"cutOff,omitempty"`
}

// MethodRenew is the call by which the hub asks a member to renew its credentials soon.
const MethodRenew = "renew"

// SectionName is the part of a member's report that is about its identity. The hub tells a site nothing by that name.
const SectionName = "enroll"

// Report is that part.
type Report struct {
	// Authorities are the hub's authorities that the member trusts, Authority the one that signed its certificate: each the
	// SHA-256 of a certificate (DER) in hexadecimal digits.
	Authorities []string `json:"authorities"`
	Authority   string   `json:"authority"`
}
