package enroll

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
