package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// When the store's file is rewritten without what is free in it. That stops reads and writes for as long as the
// content takes to copy: about a second for some hundred MiB.
const (
	// minTidy is the size of a file below which nothing is gained.
	minTidy = 16 << 20
	// maxTidyAtStart bounds the content that is copied at the start, maxTidyRunning while the API serves.
	maxTidyAtStart = etcdQuotaBytes
	maxTidyRunning = 256 << 20
	// tidyEvery is the least time between two copies while the API serves.
	tidyEvery = time.Hour
)

const (
	// upkeepEvery is how often the store is looked at.
	upkeepEvery = time.Minute
	// upkeepTimeout bounds one look, a copy included.
	upkeepTimeout = 5 * time.Minute
)

// upkeep keeps etcd's file small, and brings etcd back when the file reached its quota. The API server forgets
// the history of objects by itself, every five minutes; but it cannot when etcd takes no more writes, since it
// writes down that it does.
type upkeep struct {
	client *clientv3.Client
	log    *slog.Logger
	// tidied is when the file was rewritten last.
	tidied time.Time
}

// newUpkeep returns the upkeep of the running etcd of dir. run or close ends it.
func newUpkeep(ctx context.Context, dir string, log *slog.Logger) (*upkeep, error) {
	client, err := dialEtcd(ctx, dir, log)
	if err != nil {
		return nil, fmt.Errorf("upkeep of etcd: %w", err)
	}
	return &upkeep{client: client, log: log.With("component", "etcd")}, nil
}

// run looks after the store until ctx ends.
func (u *upkeep) run(ctx context.Context) {
	defer u.close()
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limit := int64(maxTidyRunning)
		if time.Since(u.tidied) < tidyEvery {
			limit = 0
		}
		u.once(ctx, limit)
	}
}

func (u *upkeep) close() { _ = u.client.Close() }

// once looks at the store and does what is due; a file with more than maxTidy of content stays as it is. What
// fails is logged and tried again with the next look.
func (u *upkeep) once(ctx context.Context, maxTidy int64) {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	if err := errors.Join(u.makeRoom(ctx), u.tidy(ctx, maxTidy)); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		u.log.Error("upkeep of the API server's store failed", "error", err)
	}
}

// status asks etcd about its file.
func (u *upkeep) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	s, err := u.client.Status(ctx, u.client.Endpoints()[0])
	if err != nil {
		return nil, fmt.Errorf("status of etcd: %w", err)
	}
	return s, nil
}

// tidy rewrites the file when more than half of it is free.
func (u *upkeep) tidy(ctx context.Context, limit int64) error {
	s, err := u.status(ctx)
	if err != nil {
		return err
	}
	if s.DbSize < minTidy || s.DbSizeInUse > s.DbSize/2 || s.DbSizeInUse > limit {
		return nil
	}
	return u.defragment(ctx, s)
}

func (u *upkeep) defragment(ctx context.Context, before *clientv3.StatusResponse) error {
	began := time.Now()
	u.tidied = began
	if _, err := u.client.Defragment(ctx, u.client.Endpoints()[0]); err != nil {
		return fmt.Errorf("defragment etcd: %w", err)
	}
	u.log.Info("the API server's store was rewritten without free space", "before", before.DbSize, "content", before.DbSizeInUse, "took", time.Since(began))
	return nil
}

// roomAfter is below which part of the quota the file must be for etcd to take writes again: what is just below
// it would be full again with the next ones.
const roomAfter = 0.9

// makeRoom brings etcd back after its file reached the quota: it forgets all history, rewrites the file, and lets
// etcd take writes again if that was enough.
func (u *upkeep) makeRoom(ctx context.Context) error {
	alarms, err := u.client.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("alarms of etcd: %w", err)
	}
	for _, alarm := range alarms.Alarms {
		if alarm.Alarm == etcdserverpb.AlarmType_NOSPACE {
			return u.afterFull(ctx, (*clientv3.AlarmMember)(alarm))
		}
	}
	return nil
}

func (u *upkeep) afterFull(ctx context.Context, alarm *clientv3.AlarmMember) error {
	s, err := u.status(ctx)
	if err != nil {
		return err
	}
	u.log.Warn("the API server's store is full: forgetting the history of objects", "size", s.DbSize, "quota", s.DbSizeQuota)
	if _, err := u.client.Compact(ctx, s.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact etcd: %w", err)
	}
	if s, err = u.status(ctx); err != nil {
		return err
	}
	room := int64(roomAfter * float64(s.DbSizeQuota))
	if s.DbSizeInUse < room && s.DbSize >= room {
		if err := u.defragment(ctx, s); err != nil {
			return err
		}
		if s, err = u.status(ctx); err != nil {
			return err
		}
	}
	if s.DbSize >= room {
		return fmt.Errorf("the API server's store is full (%d of %d bytes, %d of them content) and takes no writes but deletions: delete what is not needed; see metric apiserver_storage_objects", s.DbSize, s.DbSizeQuota, s.DbSizeInUse)
	}
	if _, err := u.client.AlarmDisarm(ctx, alarm); err != nil {
		return fmt.Errorf("let etcd take writes again: %w", err)
	}
	u.log.Info("the API server's store has room and takes writes again", "size", s.DbSize, "quota", s.DbSizeQuota)
	return nil
}
