package membus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/bustest"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

func TestConformance(t *testing.T) {
	bustest.Run(t, func(t testing.TB) bustest.Harness {
		b := membus.New()
		hub, site := b.Client(), b.Client()
		t.Cleanup(func() { hub.Close(); site.Close() })
		return bustest.Harness{Hub: hub, Store: hub, Site: site, Name: "shop-1", Member: "m-1"}
	})
}

func TestWorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := membus.New()
		hub, site := b.Client(), b.Client()
		defer hub.Close()
		defer site.Close()
		got := 0
		if _, err := site.Subscribe(t.Context(), wire.HintSubject("a"), func(wire.Message) { got++ }); err != nil {
			t.Fatal(err)
		}
		if err := hub.Publish(t.Context(), wire.HintSubject("a"), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got != 1 {
			t.Errorf("got %d messages once everything is idle, want 1", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := site.Subscribe(ctx, wire.CallPattern("a", "m"), func(wire.Message) {}); err != nil {
			t.Fatal(err)
		}
		if _, err := hub.Request(ctx, wire.CallSubject("a", "m", "silence"), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v after an hour of the bubble's time", err)
		}
	})
}

func TestSetConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := membus.New()
		hub, site := b.Client(), b.Client()
		defer hub.Close()
		defer site.Close()
		ctx := t.Context()
		got := 0
		if _, err := site.Subscribe(ctx, wire.HintSubject("a"), func(wire.Message) { got++ }); err != nil {
			t.Fatal(err)
		}
		watch := make(chan error, 1)
		go func() { watch <- hub.Watch(ctx, wire.AllDesired, func(wire.Message) {}) }()
		synctest.Wait()

		site.SetConnected(false)
		if err := hub.Publish(ctx, wire.HintSubject("a"), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := site.Get(ctx, wire.DesiredSubject("a", "apps")); !errors.Is(err, wire.ErrDisconnected) {
			t.Errorf("without a network Get says %v", err)
		}
		site.SetConnected(true)
		if err := hub.Publish(ctx, wire.HintSubject("a"), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got != 1 {
			t.Errorf("got %d messages, want only the one sent while connected", got)
		}
		hub.SetConnected(false)
		if err := <-watch; !errors.Is(err, wire.ErrDisconnected) {
			t.Errorf("without a network a watch ends with %v", err)
		}
	})
}

func TestClosed(t *testing.T) {
	c := membus.New().Client()
	watch := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		watch <- c.Watch(t.Context(), wire.AllDesired, func(wire.Message) { close(begun) })
	}()
	<-begun
	c.Close()
	if err := <-watch; !errors.Is(err, wire.ErrClosed) {
		t.Errorf("a watch ends with %v when its client is closed", err)
	}
	if err := c.Publish(t.Context(), "a", nil); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("a closed client publishes with %v", err)
	}
}
