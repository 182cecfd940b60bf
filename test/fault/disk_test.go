package fault

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/test/fault/powercut"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// served is a hub and a box on a disk of its own, whose app hello serves.
func served(t *testing.T) (*fleettest.Hub, *box, *powercut.Disk) {
	t.Helper()
	fleettest.Require(t)
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", "127.0.0.1:0", "--kube-addr", "127.0.0.1:0")
	b := newBox(t, "toll-1")
	disk := b.onDisk()
	b.start(h.Token(t, b.name, "--label", "kind=toll"))
	placeHello(t, h, "1.0.0")
	awaitNewest(t, h, 1)
	return h, b, disk
}

// awaitSaid waits until the hub's own view of the app names a fault.
func awaitSaid(t *testing.T, h *fleettest.Hub, wants ...string) {
	t.Helper()
	fleettest.Eventually(t, time.Minute, fmt.Sprintf("the hub says %q of the app or its site", wants), func() string {
		said := ""
		for _, args := range [][]string{{"status", "app/hello", "-o", "json"}, {"get", "site", "toll-1", "-o", "json"}} {
			out, err := h.TrySkerry(args...)
			if err != nil {
				return out
			}
			said += out
		}
		for _, want := range wants {
			if strings.Contains(said, want) {
				return ""
			}
		}
		return said
	})
}

// url is where the app hello answers.
func (b *box) url() string {
	b.t.Helper()
	s, err := fleettest.StatusIn(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Gateway + "/hello"
}

// TestDiskFaults fills a site's disk, and lets it go read-only, while a release goes out: the hub is told why
// the site does not take it, no request of the running app fails meanwhile, and the site takes the release
// when the disk is well again, without anybody's help.
func TestDiskFaults(t *testing.T) {
	t.Parallel()
	h, b, disk := served(t)
	for n, fault := range []struct {
		reason        string
		breaks, mends func()
		said          string
	}{
		{"no byte is left", func() { disk.Fill(0) }, disk.Empty, syscall.ENOSPC.Error()},
		{"there is room for records and not for the bundle", func() { disk.Fill(256 << 10) }, disk.Empty, syscall.ENOSPC.Error()},
		{"the disk is read-only", func() { disk.Break(syscall.EROFS) }, func() { disk.Break(0) }, syscall.EROFS.Error()},
		{"every write fails", func() { disk.Break(syscall.EIO) }, func() { disk.Break(0) }, syscall.EIO.Error()},
	} {
		t.Run(fault.reason, func(t *testing.T) {
			stop := load(b.url())
			fault.breaks()
			version := fmt.Sprintf("1.%d.0", n+1)
			placeHello(t, h, version)
			awaitSaid(t, h, fault.said)
			report(t, b.name, stop)
			fault.mends()
			awaitNewest(t, h, 1)
			b.awaitServes("/hello", "hello "+version)
		})
	}
	fleettest.Eventually(t, 30*time.Second, "no problem stays when the disk is well", func() string {
		s, err := fleettest.StatusIn(b.dir)
		if err != nil || len(s.Problems) > 0 {
			return fmt.Sprint(s.Problems, err)
		}
		return ""
	})
}

// idle is what an agent with one app may write while nothing happens: what it keeps changes only with what it
// is told, so a disk of flash is not worn by it. The bound leaves room for one transaction of the store.
const (
	idleBytes  = 64 << 10
	idleSyncs  = 8
	idlePeriod = 3 * wire.AliveSeconds * time.Second
)

// TestIdleWrites counts what an agent with one app writes over three signs of life in which nothing happens.
// SKERRY_IDLE, a duration, counts for longer, for docs/benchmarks/faults.md.
func TestIdleWrites(t *testing.T) {
	t.Parallel()
	_, b, disk := served(t)
	period := idlePeriod
	if d, err := time.ParseDuration(os.Getenv("SKERRY_IDLE")); err == nil {
		period = d
	}
	settle(t, disk)
	before := disk.Counts()
	time.Sleep(period) // nothing is to happen
	now := disk.Counts()
	bytes, writes, syncs := now.Bytes-before.Bytes, now.Writes-before.Writes, now.Syncs-before.Syncs
	t.Logf("in %s idle the agent and its app wrote %d bytes in %d writes and synced %d times", period, bytes, writes, syncs)
	if bytes > idleBytes || syncs > idleSyncs {
		t.Errorf("in %s idle %d bytes were written and %d syncs made, want at most %d and %d", period, bytes, syncs, idleBytes, idleSyncs)
	}
	b.awaitServes("/hello", "hello 1.0.0")
	if path := os.Getenv(outcomeFile); path != "" {
		data, err := json.Marshal(map[string]any{"seconds": period.Seconds(), "bytes": bytes, "writes": writes, "syncs": syncs})
		must(t, err)
		must(t, os.WriteFile(path, data, 0o600))
	}
}

// settle waits until nothing was written for a second: what a rollout leaves to do is done.
func settle(t *testing.T, disk *powercut.Disk) {
	t.Helper()
	last, since := disk.Counts(), time.Now()
	fleettest.Eventually(t, time.Minute, "the disk is quiet", func() string {
		if now := disk.Counts(); now != last {
			last, since = now, time.Now()
		}
		if quiet := time.Since(since); quiet < time.Second {
			return fmt.Sprint("quiet for ", quiet)
		}
		return ""
	})
}

// TestStartOnAFullDisk starts the agent where no byte is left, and then with room for some records. Without a
// byte it is there and says what is wrong, and its apps come by themselves when there is room; with a little
// they come at once.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	h, b, disk := served(t)
	b.kill()
	disk.Fill(0)
	b.start("")
	awaitSaid(t, h, syscall.ENOSPC.Error())
	disk.Empty()
	b.awaitServes("/hello", "hello 1.0.0")

	b.kill()
	disk.Fill(64 << 10)
	b.start("")
	b.awaitServes("/hello", "hello 1.0.0")
	disk.Empty()
	b.awaitConnected()
	awaitNewest(t, h, 1)
}

// flip turns one bit in the middle of every file of the box below a directory.
func flip(t *testing.T, b *box, disk *powercut.Disk, below string) (files int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(b.dir, below), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(b.dir, path)
		if err != nil {
			return err
		}
		files++
		return disk.Edit(name, func(data []byte) []byte {
			if len(data) > 0 {
				data[len(data)/2] ^= 0x10
			}
			return data
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestDamageOnDisk damages what a site keeps while its agent is down: bits flip in every blob and every unpacked
// file, then the store is cut. Each start finds it, says so, gets what is lost from the hub and serves.
func TestDamageOnDisk(t *testing.T) {
	t.Parallel()
	h, b, disk := served(t)
	for _, damage := range []struct {
		reason string
		do     func(t *testing.T)
		said   string
	}{
		{"a bit flips in each file of the content and of what was unpacked of it", func(t *testing.T) {
			if n := flip(t, b, disk, "content") + flip(t, b, disk, "apps/unpacked"); n < 5 {
				t.Fatalf("only %d files were there to damage", n)
			}
		}, "content is corrupt on disk"},
		{"the store is cut to its first pages", func(t *testing.T) {
			must(t, disk.Edit("store.db", func(data []byte) []byte { return data[:3*4096] }))
		}, "this site's store was damaged"},
		{"a bit flips in the store's first record page", func(t *testing.T) {
			must(t, disk.Edit("store.db", func(data []byte) []byte { data[4096*4+200] ^= 1; return data }))
		}, ""},
	} {
		t.Run(damage.reason, func(t *testing.T) {
			b.kill()
			damage.do(t)
			b.start("")
			b.awaitServes("/hello", "hello 1.0.0")
			b.awaitConnected()
			awaitNewest(t, h, 1)
			if !strings.Contains(b.said.String(), damage.said) {
				t.Errorf("the agent does not say %q", damage.said)
			}
		})
	}
}
