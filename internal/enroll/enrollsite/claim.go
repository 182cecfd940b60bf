package enrollsite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Bounds of the time between two questions whether a claim is approved.
const (
	firstClaimWait = 2 * time.Second
	lastClaimWait  = 2 * time.Minute
)

// Claim asks the hub, with a claim code, to become a member of whichever site a person says, and returns when this
// machine is one, the hub refuses for good, or ctx ends. A machine that is started again asks with the same keys, so
// that its place in the queue stays.
func Claim(ctx context.Context, o Options, code enroll.ClaimCode) (*Identity, error) {
	wait, told := firstClaimWait, ""
	for {
		identity, err := join(ctx, o, code.Token, wire.PathClaim)
		var refused *RefusedError
		again := jitter(wait)
		switch {
		case err == nil:
			return identity, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("claim with %s: %w", code, ctx.Err())
		case errors.As(err, &refused) && refused.Final():
			return nil, fmt.Errorf("claim with %s: %w", code, err)
		case errors.As(err, &refused) && refused.Reason == wire.RefusedDenied:
			again = jitter(finalRetry) // a person may think again
		}
		if text := err.Error(); text != told { // once, not at each question
			told = text
			o.Log.Warn("not a member of any site yet", "fingerprint", o.Hardware.Fingerprint, "error", err)
		}
		wait = min(wait*3/2, lastClaimWait)
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("claim with %s: %w", code, ctx.Err())
		case <-timer.C:
		}
	}
}
