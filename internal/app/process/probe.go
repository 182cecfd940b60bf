package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
)

// Defaults of app.Probe, and how often readiness is asked until it first holds.
const (
	defaultPeriod    = 5
	defaultTimeout   = 2
	defaultThreshold = 3
	firstPeriod      = 100 * time.Millisecond
)

// maxProbeBody bounds what is read of an answer: the status is what counts.
const maxProbeBody = 64 << 10

// health is what probing found.
type health struct {
	// ready and dead are exclusive; neither means that readiness was lost.
	ready, dead bool
	reason      string
}

// probeClient asks the program itself: no proxy, no redirect, no connection that outlives the question.
func probeClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// check asks once. A nil probe asks whether the port accepts connections.
func check(ctx context.Context, client *http.Client, port int, p *app.Probe) error {
	timeout := defaultTimeout * time.Second
	if p != nil && p.TimeoutSeconds > 0 {
		timeout = time.Duration(p.TimeoutSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if p == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", loopback(port))
		if err != nil {
			return plain("connect to PORT", err)
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(port)+p.Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "skerry-probe")
	resp, err := client.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("GET %s: no answer within %s", p.Path, timeout)
	}
	if err != nil {
		return plain("GET "+p.Path, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxProbeBody)
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s: status %d", p.Path, resp.StatusCode)
	}
	return nil
}

// plain leaves the addresses out of a network error, so that the same fault reads the same each time.
func plain(what string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// watchReadiness tells each change of readiness until ctx ends.
func watchReadiness(ctx context.Context, port int, p *app.Probe, tell func(health)) {
	client := probeClient()
	period, threshold := probeTimes(p)
	ready, failures, told := false, 0, ""
	for {
		err := check(ctx, client, port, p)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			if !ready {
				ready, told = true, ""
				tell(health{ready: true})
			}
			if p == nil {
				return // a port that accepts once is left to liveness
			}
		case ready:
			if failures++; failures >= threshold {
				ready, told = false, err.Error()
				tell(health{reason: fmt.Sprintf("readiness probe: %v", err)})
			}
		case err.Error() != told:
			told = err.Error()
			tell(health{reason: "not ready yet: " + told})
		}
		wait := period
		if !ready {
			wait = min(firstPeriod, period)
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// watchLiveness tells once, when the program should be restarted.
func watchLiveness(ctx context.Context, port int, p *app.Probe, tell func(health)) {
	if p == nil {
		return
	}
	client := probeClient()
	period, threshold := probeTimes(p)
	if !sleep(ctx, max(time.Duration(p.InitialDelaySeconds)*time.Second, period)) {
		return
	}
	for failures := 0; ; {
		err := check(ctx, client, port, p)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
		} else if failures++; failures >= threshold {
			tell(health{dead: true, reason: fmt.Sprintf("liveness probe failed %d times: %v", failures, err)})
			return
		}
		if !sleep(ctx, period) {
			return
		}
	}
}

func probeTimes(p *app.Probe) (period time.Duration, threshold int) {
	if p == nil {
		return defaultPeriod * time.Second, defaultThreshold
	}
	return time.Duration(cmp.Or(p.PeriodSeconds, defaultPeriod)) * time.Second, cmp.Or(p.FailureThreshold, defaultThreshold)
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
