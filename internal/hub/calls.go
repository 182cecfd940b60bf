package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Errors of calls to sites.
var (
	// ErrSiteAway means that the site cannot be asked now.
	ErrSiteAway = errors.New("site is away")
	// ErrRefused means that the site answered with an error of its own.
	ErrRefused = errors.New("site refused")
)

// callTimeout bounds the wait for the first answer of a member.
const callTimeout = 10 * time.Second

// Caller asks the members of sites something now. It is safe for concurrent use.
type Caller struct {
	bus   wire.Bus
	fleet *Fleet
}

// NewCaller returns a Caller that finds members by what they report.
func NewCaller(bus wire.Bus, fleet *Fleet) *Caller { return &Caller{bus: bus, fleet: fleet} }

// Call asks the member that reports for site and decodes its answer into reply, which may be nil.
func (c *Caller) Call(ctx context.Context, site fleet.SiteName, method string, request, reply any) error {
	member, err := c.member(site)
	if err != nil {
		return err
	}
	body, err := c.ask(ctx, site, member, method, "", request)
	if err != nil || reply == nil {
		return err
	}
	if err := json.Unmarshal(body, reply); err != nil {
		return fmt.Errorf("site %s: answer to %s: %w: %w", site, method, err, wire.ErrMessage)
	}
	return nil
}

func (c *Caller) member(site fleet.SiteName) (fleet.MemberID, error) {
	report, ok := c.fleet.Report(site)
	if !ok {
		return "", fmt.Errorf("site %s has never reported: %w", site, ErrSiteAway)
	}
	return report.Member, nil
}

func (c *Caller) ask(ctx context.Context, site fleet.SiteName, member fleet.MemberID, method, stream string, request any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("site %s: encode call of %s: %w", site, method, err)
	}
	data, err := wire.Call{Stream: stream, Body: body}.Encode()
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", site, err)
	}
	m, err := c.bus.Request(ctx, wire.CallSubject(site, member, method), data)
	switch {
	case errors.Is(err, wire.ErrNoResponder), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("site %s did not answer: %w", site, ErrSiteAway)
	case err != nil:
		return nil, fmt.Errorf("call %s at site %s: %w", method, site, err)
	}
	var reply wire.CallReply
	if err := wire.DecodeJSON("reply", m.Data, &reply); err != nil {
		return nil, fmt.Errorf("site %s: answer to %s: %w", site, method, err)
	}
	if reply.Error != "" {
		return nil, fmt.Errorf("site %s: %s: %w", site, reply.Error, ErrRefused)
	}
	return reply.Body, nil
}
