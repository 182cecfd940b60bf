package enroll

import "github.com/skerry-dev/skerry/internal/fleet"

// PathToken is where people ask the hub for a join token; {site} is the site's name. It needs the right
// to create sites/token, a subresource that exists for this right alone.
const PathToken = "/view/v1/sites/{site}/token"

// TokenRequest asks for a join token.
type TokenRequest struct {
	// TTLSeconds is how long the token may be used; zero means half an hour, at most a week.
	TTLSeconds int `json:"ttlSeconds,omitempty"`
}

// TokenAnswer carries a join token. It is shown once: the hub keeps only its hash.
type TokenAnswer struct {
	Token string `json:"token"`
}

// PathTokens is where people ask the hub for many tokens at once. It needs the right to create sites/token for
// every site, or for each of those that are named.
const PathTokens = "/view/v1/sites-tokens"

// MaxBatch is how many tokens one request may ask for.
const MaxBatch = 500

// TokensRequest asks for a join token for each of 1 to MaxBatch sites, which must be there. Either all are made
// or the request fails as a whole.
type TokensRequest struct {
	// TTLSeconds is that of TokenRequest.
	TTLSeconds int         `json:"ttlSeconds,omitempty"`
	Sites      []TokenSite `json:"sites"`
}

// TokenSite is a site that a token is asked for.
type TokenSite struct {
	Name fleet.SiteName `json:"name"`
	// Fingerprint, if set, is that of the only machine that may use the token.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// TokensAnswer carries the tokens in the order of the request's sites. They are shown once.
type TokensAnswer struct {
	Tokens []string `json:"tokens"`
}
