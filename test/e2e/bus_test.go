package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// TestExternalNATS runs a hub on a nats-server that somebody else runs, over TLS, with an account for the
// fleet: a site joins through the hub's port, and a person who revokes it is told how long it may stay.
func TestExternalNATS(t *testing.T) {
	fleettest.Require(t)
	n := startNATS(t)
	dir := fleettest.NewDir(t)
	h := fleettest.StartHub(t, programs, dir, "--addr", "127.0.0.1:0", "--kube-addr", "127.0.0.1:0",
		"--nats-url", n.url, "--nats-ca", n.ca, "--nats-account", n.account, "--nats-signing-key", n.signingKey)
	site := h.Join(t, "box-1")
	if _, err := os.Stat(filepath.Join(dir, "bus")); !os.IsNotExist(err) {
		t.Errorf("the hub started a bus of its own: %v", err)
	}
	out, err := h.TrySkerry("site", "revoke", "box-1")
	if err != nil || !strings.Contains(out, "1 members revoked, cut off within 10m0s") {
		t.Errorf("such a bus takes no revocations; the command says: %s %v", out, err)
	}
	if s, err := fleettest.StatusIn(site); err != nil || s.Link != fleet.LinkConnected {
		t.Errorf("the site's credential is still good: %v %v", s.Link, err)
	}
}

// TestNATSPort lets a site join a hub that has NATS' own port open, and speak to that.
func TestNATSPort(t *testing.T) {
	fleettest.Require(t)
	dir := fleettest.NewDir(t)
	port := freePort(t)
	h := fleettest.StartHub(t, programs, dir, "--addr", "127.0.0.1:0", "--kube-addr", "127.0.0.1:0", "--nats-listen", port)
	site := h.Join(t, "box-1")
	s, err := fleettest.StatusIn(site)
	if err != nil {
		t.Fatal(err)
	}
	if to := peers(t, s.PID); !strings.Contains(to, port) {
		t.Errorf("the agent speaks to %s, not to NATS' own port %s", to, port)
	}
	if out, err := h.TrySkerry("site", "revoke", "box-1"); err != nil || strings.Contains(out, "cut off within") {
		t.Errorf("revoke: %s %v", out, err)
	}
	fleettest.Eventually(t, 20*time.Second, "the site is cut off", func() string {
		if s, err := fleettest.StatusIn(site); err != nil || s.Link == fleet.LinkConnected {
			return fmt.Sprint(s.Link, err)
		}
		return ""
	})
}

// peers lists the remote addresses of a process' TCP connections, from the tables of its network namespace.
func peers(t *testing.T, pid int) string {
	t.Helper()
	own := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		var ip, port uint32
		if len(f) < 10 || !own[f[9]] {
			continue
		}
		if _, err := fmt.Sscanf(f[2], "%08X:%04X", &ip, &port); err == nil && port != 0 {
			out = append(out, fmt.Sprintf("%s:%d", net.IPv4(byte(ip), byte(ip>>8), byte(ip>>16), byte(ip>>24)), port))
		}
	}
	return strings.Join(out, " ")
}

// freePort returns a loopback address at which nobody listens now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// externalNATS is a nats-server process with an operator, an account for the fleet, JetStream and TLS.
type externalNATS struct {
	url, account string
	// ca and signingKey are files.
	ca, signingKey string
}

func startNATS(t *testing.T) externalNATS {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "nats-server")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("build nats-server: %v\n%s", err, out)
	}
	n := externalNATS{ca: filepath.Join(dir, "ca.pem"), signingKey: filepath.Join(dir, "signing.nk")}
	accounts := n.makeAccounts(t)
	certificate(t, n.ca, filepath.Join(dir, "key.pem"))
	address := freePort(t)
	n.url = "tls://" + address
	config := fmt.Sprintf("listen: %q\njetstream { store_dir: %q }\ntls { cert_file: %q, key_file: %q }\n%s",
		address, filepath.Join(dir, "js"), n.ca, filepath.Join(dir, "key.pem"), accounts)
	file := filepath.Join(dir, "nats.conf")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	fleettest.Run(t, program, "-c", file)
	fleettest.Eventually(t, 30*time.Second, "nats-server listens", func() string {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
	return n
}

// makeAccounts makes what nsc would: an operator, a system account, and the fleet's account with a signing key.
func (n *externalNATS) makeAccounts(t *testing.T) (config string) {
	t.Helper()
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		p, err := create()
		must(t, err)
		public, err := p.PublicKey()
		must(t, err)
		return p, public
	}
	operator, operatorKey := pair(nkeys.CreateOperator)
	_, system := pair(nkeys.CreateAccount)
	_, account := pair(nkeys.CreateAccount)
	signing, signingKey := pair(nkeys.CreateAccount)
	seed, err := signing.Seed()
	must(t, err)
	must(t, os.WriteFile(n.signingKey, seed, 0o600))
	n.account = account
	root := jwt.NewOperatorClaims(operatorKey)
	root.SystemAccount = system
	trusted, err := root.Encode(operator)
	must(t, err)
	fleetClaims := jwt.NewAccountClaims(account)
	fleetClaims.SigningKeys.Add(signingKey)
	fleetClaims.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: 1 << 28, MemoryStorage: 1 << 24, Streams: -1, Consumer: -1}
	var preload bytes.Buffer
	for _, c := range []*jwt.AccountClaims{fleetClaims, jwt.NewAccountClaims(system)} {
		token, err := c.Encode(operator)
		must(t, err)
		fmt.Fprintf(&preload, "  %s: %q\n", c.Subject, token)
	}
	return fmt.Sprintf("operator: %q\nsystem_account: %s\nresolver: MEMORY\nresolver_preload {\n%s}\n", trusted, system, &preload)
}

// certificate makes one for 127.0.0.1 that vouches for itself.
func certificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
