package enrollsite

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/wire"
)

// Bounds of one exchange with the hub.
const (
	askTimeout = 30 * time.Second
	maxAnswer  = 256 << 10
)

// RefusedError is the hub's answer that it does not admit or renew this member.
type RefusedError struct {
	// Reason is one of the Refused constants of package wire; Message is for people.
	Reason, Message string
}

// Error says why, and what to do.
func (e *RefusedError) Error() string { return "the hub refuses: " + e.Message }

// Final reports whether asking again with the same token or key is in vain.
func (e *RefusedError) Final() bool {
	switch e.Reason {
	case wire.RefusedToken, wire.RefusedRevoked, wire.RefusedUnknown, wire.RefusedInvalid, wire.RefusedHardware:
		return true
	}
	return false
}

// asker sends requests that are signed with a member's key.
type asker struct {
	key   ed25519.PrivateKey
	tls   *tls.Config
	proxy func(*url.URL) (*url.URL, error)
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	pins  []pin
}

// ask tries each of the hub's addresses and returns the first answer. A final refusal of one is that of
// all; other errors are joined.
func (a *asker) ask(ctx context.Context, urls []string, path string, request wire.EnrollRequest) (wire.EnrollResponse, error) {
	request.Protocol = wire.Protocol
	request.PublicKey = a.key.Public().(ed25519.PublicKey)
	transport := &http.Transport{
		TLSClientConfig:     a.tls,
		TLSHandshakeTimeout: askTimeout,
		DialContext:         a.dial,
		Proxy: func(r *http.Request) (*url.URL, error) {
			if a.proxy != nil {
				return a.proxy(r.URL)
			}
			return http.ProxyFromEnvironment(r)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		Timeout:   askTimeout,
		// The hub never redirects, and a secret must not follow one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var failed []error
	for _, base := range urls {
		response, err := a.askOne(ctx, client, strings.TrimSuffix(base, "/")+path, request)
		var refused *RefusedError
		switch {
		case err == nil:
			return response, nil
		case errors.As(err, &refused) && refused.Final(), ctx.Err() != nil:
			return wire.EnrollResponse{}, err
		}
		failed = append(failed, err)
	}
	return wire.EnrollResponse{}, errors.Join(failed...)
}

// askOne sends request, gets the challenge, and sends it signed.
func (a *asker) askOne(ctx context.Context, client *http.Client, to string, request wire.EnrollRequest) (wire.EnrollResponse, error) {
	unsigned := request
	unsigned.TokenSecret = "" // not before the hub can use it
	_, refusal, err := post(ctx, client, to, unsigned)
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	if refusal.Reason != wire.RefusedChallenge {
		return wire.EnrollResponse{}, refusalError(to, refusal)
	}
	request.Challenge = refusal.Challenge
	request.Signature = ed25519.Sign(a.key, wire.EnrollSigned(request))
	response, refusal, err := post(ctx, client, to, request)
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	if refusal.Reason != "" {
		return wire.EnrollResponse{}, refusalError(to, refusal)
	}
	return response, a.check(to, response, request)
}

func refusalError(to string, r wire.EnrollRefusal) error {
	if r.Reason == "" {
		return fmt.Errorf("%s answered an unsigned request: %w", to, wire.ErrMessage)
	}
	return &RefusedError{Reason: r.Reason, Message: r.Message}
}

// post returns the answer, or a refusal whose Reason is set.
func post(ctx context.Context, client *http.Client, to string, request wire.EnrollRequest) (response wire.EnrollResponse, refusal wire.EnrollRefusal, err error) {
	body, err := wire.EncodeJSON("enrolment", request)
	if err != nil {
		return response, refusal, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return response, refusal, fmt.Errorf("ask the hub: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return response, refusal, fmt.Errorf("ask the hub: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return response, refusal, fmt.Errorf("read the hub's answer: %w", err)
	}
	if res.StatusCode == http.StatusOK {
		return response, refusal, wire.DecodeJSON("answer of the hub", data, &response)
	}
	if err := json.Unmarshal(data, &refusal); err != nil || refusal.Reason == "" {
		return response, wire.EnrollRefusal{}, fmt.Errorf("%s answered %s, which a hub does not: check the address and the proxy: %w", to, res.Status, wire.ErrMessage)
	}
	return response, refusal, nil
}

// check refuses an answer that this member cannot use.
func (a *asker) check(from string, r wire.EnrollResponse, request wire.EnrollRequest) error {
	fail := func(what string, err error) error {
		return fmt.Errorf("answer of %s: %s: %w", from, what, errors.Join(err, wire.ErrMessage))
	}
	if r.Protocol < 1 || r.Protocol > wire.Protocol {
		return fail(fmt.Sprintf("protocol %d, this program speaks 1 to %d: upgrade it", r.Protocol, wire.Protocol), nil)
	}
	if err := errors.Join(r.Site.Validate(), r.Member.Validate()); err != nil {
		return fail("site or member", err)
	}
	if request.Member != "" && (r.Site != request.Site || r.Member != request.Member) {
		return fail(fmt.Sprintf("it is for site %q, member %q", r.Site, r.Member), nil)
	}
	if err := a.checkAuthorities(r); err != nil {
		return fail("authorities", err)
	}
	chain, err := parseCertificates([]byte(r.Certificate))
	if err != nil || len(chain) == 0 {
		return fail("no certificate", err)
	}
	if key, ok := chain[0].PublicKey.(ed25519.PublicKey); !ok || !key.Equal(a.key.Public()) {
		return fail("the certificate is for another key", nil)
	}
	if r.ServingCertificate != "" {
		if err := checkServing(r, request.ServingKey); err != nil {
			return fail("certificate of the gateway", err)
		}
	}
	if r.BusCredential == "" || r.HubTime == 0 || r.NotBefore == 0 || r.Expires <= r.NotBefore {
		return fail("credential or times are missing", nil)
	}
	return nil
}

// checkAuthorities refuses an authority that this member does not know by its token or an earlier answer, and others
// that could not be trusted beside it.
func (a *asker) checkAuthorities(r wire.EnrollResponse) error {
	inUse, err := parseCertificates([]byte(r.CA))
	if err != nil || len(inUse) != 1 || !slices.Contains(a.pins, sha256.Sum256(inUse[0].Raw)) {
		return errors.Join(err, errors.New("the one in use is not one that the token named"))
	}
	if r.Authorities == "" {
		return nil
	}
	all, err := parseCertificates([]byte(r.Authorities))
	if err != nil || len(all) == 0 || len(all) > wire.MaxAuthorities {
		return errors.Join(err, fmt.Errorf("%d are named, want 1 to %d", len(all), wire.MaxAuthorities))
	}
	if !slices.ContainsFunc(all, inUse[0].Equal) {
		return errors.New("the one in use is not among them")
	}
	for _, c := range all {
		if !c.IsCA {
			return fmt.Errorf("%q is none", c.Subject)
		}
	}
	return nil
}
