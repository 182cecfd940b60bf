package natsserver_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

func TestRevokedMemberIsCutOff(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	url := serve(t, s)
	gone := newIdentity(t, "shop-1", "m-1")
	kept := newIdentity(t, "shop-1", "m-2").connect(t, s, url)
	old := gone.credential(t, s.IssueMember, time.Now())
	c := gone.connect(t, s, url)
	begun := time.Now()
	must(t, s.Revoke(gone.public))
	must(t, s.Revoke(gone.public)) // idempotent
	await(t, c.closed, "the revoked member is cut off")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := await(t, c.errors, "a reason"); !errors.Is(err, nats.ErrAuthRevoked) {
		t.Errorf("it was told %v", err)
	}
	if err := kept.Flush(); err != nil {
		t.Errorf("another member lost its connection: %v", err)
	}
	wantRevoked := func(s *natsserver.Server, url string) {
		t.Helper()
		if _, _, _, err := s.IssueMember(gone.site, gone.member, gone.public, time.Hour, time.Now()); !errors.Is(err, natsserver.ErrRevoked) {
			t.Errorf("a new credential: %v", err)
		}
		nc, err := nats.Connect(url, nats.NoReconnect(), nats.UserJWT(func() (string, error) { return old, nil }, gone.sign))
		if err == nil {
			nc.Close()
			t.Error("the old credential still lets it in")
		}
	}
	wantRevoked(s, url)
	s.Stop()
	again := start(t, dir)
	wantRevoked(again, serve(t, again))
}

// TestHelperServer is not a test: it is the process that TestKillAndRestart kills.
func TestHelperServer(t *testing.T) {
	dir := os.Getenv("SKERRY_TEST_BUS_DIR")
	if dir == "" {
		t.Skip("runs only as a child of TestKillAndRestart")
	}
	s := start(t, dir)
	hub := connectHub(t, s)
	makeStreams(t, hub)
	must(t, s.Revoke(newIdentityFromSeed(t, 'r').public))
	member := newIdentityFromSeed(t, 'k')
	fmt.Println("credential", member.credential(t, s.IssueMember, time.Now()))
	for i := 0; ; i++ {
		m, err := hub.Request(wire.DesiredSubject("shop-1", "apps"), fmt.Append(nil, i), patience)
		must(t, err)
		if !strings.Contains(string(m.Data), `"seq"`) {
			t.Fatalf("not stored: %s", m.Data)
		}
		fmt.Println("acknowledged", i)
	}
}

func TestKillAndRestart(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestHelperServer$", "-test.v")
	child.Env = append(os.Environ(), "SKERRY_TEST_BUS_DIR="+dir)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	var credential string
	last := -1
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		fmt.Sscanf(lines.Text(), "credential %s", &credential)
		if n, _ := fmt.Sscanf(lines.Text(), "acknowledged %d", &last); n == 1 && last == 50 {
			must(t, child.Process.Kill()) // lines already written are still read
		}
	}
	if err := child.Wait(); err == nil || last < 50 || credential == "" {
		t.Fatalf("the child ended with %v after %d writes", err, last)
	}

	s := start(t, dir)
	hub := connectHub(t, s)
	m, err := hub.Request(directGet+wire.DesiredSubject("shop-1", "apps"), nil, patience)
	must(t, err)
	var stored int
	fmt.Sscan(string(m.Data), &stored)
	if stored < last {
		t.Errorf("write %d was acknowledged, stored is %q", last, m.Data)
	}
	member := newIdentityFromSeed(t, 'k')
	nc, err := nats.Connect(serve(t, s), nats.UserJWT(func() (string, error) { return credential, nil }, member.sign))
	if err != nil {
		t.Fatalf("a credential from before the kill: %v", err)
	}
	nc.Close()
	revoked := newIdentityFromSeed(t, 'r')
	if _, _, _, err := s.IssueMember("shop-1", "m-1", revoked.public, time.Hour, time.Now()); !errors.Is(err, natsserver.ErrRevoked) {
		t.Errorf("a revocation from before the kill is forgotten: %v", err)
	}
}

func TestSeedsAreSecretAndKept(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	s.Stop()
	files, err := filepath.Glob(filepath.Join(dir, "*.seed"))
	must(t, err)
	if len(files) != 4 {
		t.Errorf("found %v, want four keys", files)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "account.seed"), []byte("damaged"), 0o600))
	if _, err := natsserver.Start(natsserver.Options{Dir: dir, Log: testLog(t)}); err == nil || !strings.Contains(err.Error(), "account.seed") {
		t.Errorf("a damaged key is answered with %v", err)
	}
}

// TestManySitesAtOnce lets a fleet come back at one moment, as after a power cut.
func TestManySitesAtOnce(t *testing.T) {
	const sites = 200
	s := start(t, t.TempDir())
	front := httptest.NewTLSServer(s.WebSocketHandler())
	t.Cleanup(front.Close)
	url := strings.Replace(front.URL, "https:", "wss:", 1) + wire.PathBus
	trust := front.Client().Transport.(*http.Transport).TLSClientConfig
	options := make([][]nats.Option, sites)
	for i := range options {
		id := newIdentity(t, "shop-1", "m-1")
		options[i] = append(id.options(t, s), nats.Secure(trust))
	}
	gate := make(chan struct{})
	var wg sync.WaitGroup
	for i := range sites {
		wg.Go(func() {
			<-gate
			nc, err := nats.Connect(url, options[i]...)
			if err != nil {
				t.Errorf("site %d: %v", i, err)
				return
			}
			t.Cleanup(nc.Close)
			if err := nc.FlushTimeout(patience); err != nil {
				t.Errorf("site %d: %v", i, err)
			}
		})
	}
	begun := time.Now()
	close(gate)
	wg.Wait()
	t.Logf("%d sites over WebSocket and TLS in %v", sites, time.Since(begun))
	if now, _ := s.Connections(); now != sites {
		t.Errorf("%d connections are counted, want %d", now, sites)
	}
}

func TestConnectionLimit(t *testing.T) {
	s, err := natsserver.Start(natsserver.Options{Dir: t.TempDir(), Log: testLog(t), MaxConnections: 1})
	must(t, err)
	t.Cleanup(s.Stop)
	url := serve(t, s)
	first := newIdentity(t, "shop-1", "m-1").connect(t, s, url)
	if nc, err := nats.Connect(url, newIdentity(t, "shop-2", "m-2").options(t, s)...); err == nil {
		nc.Close()
		t.Error("one more than the limit came in")
	}
	first.Close()
	// The place is free once the relay has ended.
	deadline := time.Now().Add(patience)
	for now := 1; now > 0; now, _ = s.Connections() {
		if time.Now().After(deadline) {
			t.Fatal("the place was not given back")
		}
		time.Sleep(time.Millisecond)
	}
	newIdentity(t, "shop-2", "m-2").connect(t, s, url)
}

func TestStopEndsConnections(t *testing.T) {
	s := start(t, t.TempDir())
	c := newIdentity(t, "shop-1", "m-1").connect(t, s, serve(t, s))
	stopped := make(chan struct{})
	go func() { s.Stop(); close(stopped) }()
	await(t, stopped, "the server stops with a member connected")
	await(t, c.closed, "the member's connection ends")
}

func TestPlainRequestIsRefused(t *testing.T) {
	s := start(t, t.TempDir())
	front := httptest.NewServer(s.WebSocketHandler())
	t.Cleanup(front.Close)
	answer, err := http.Get(front.URL)
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("a request that is no WebSocket is answered %s", answer.Status)
	}
}

func TestExternalIssuer(t *testing.T) {
	if _, err := natsserver.NewIssuer("not a key", nil); err == nil {
		t.Error("took an account that is none")
	}
	seed, account := accountSeed(t)
	if _, err := natsserver.NewIssuer(account, []byte("SUAnonsense")); err == nil {
		t.Error("took a seed that is none")
	}
	issuer, err := natsserver.NewIssuer(account, seed)
	must(t, err)
	id := newIdentity(t, "shop-1", "m-1")
	now := time.Now()
	_, _, expires, err := issuer.IssueMember(id.site, id.member, id.public, time.Hour, now)
	must(t, err)
	if got := expires.Sub(now); got > natsserver.MaxTTLWithoutRevocation {
		t.Errorf("a credential that nobody can revoke lives %v", got)
	}
	if issuer.CanRevoke() {
		t.Error("it says that it can revoke")
	}
	for _, bad := range []identity{
		{site: "shop.*", member: "m", public: id.public}, {site: "shop", member: ">", public: id.public},
		{site: "", member: "m", public: id.public}, {site: "shop", member: "m", public: id.public[:5]},
	} {
		if _, _, _, err := issuer.IssueMember(bad.site, bad.member, bad.public, time.Hour, now); err == nil {
			t.Errorf("issued a credential to site %q, member %q with a key of %d bytes", bad.site, bad.member, len(bad.public))
		}
	}
}
