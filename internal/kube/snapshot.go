package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// endpointFile holds, below Options.Dir, where etcd answers. It stays after a crash; what answers there then
// has no certificate of this etcd's authority.
const endpointFile = "etcd.endpoint"

// dialTimeout bounds the wait for an etcd of this machine.
const dialTimeout = 10 * time.Second

// KeysDir is the directory below Options.Dir with every key and certificate: with a snapshot of the store it is
// all that makes up a Server.
func KeysDir(dir string) string { return filepath.Join(dir, pkiDir) }

// Snapshot writes the content of the store that the running Server of dir has, at one point in time, with
// etcd's own checksum behind it. Who may read dir may do this.
func Snapshot(ctx context.Context, dir string, w io.Writer, log *slog.Logger) error {
	client, err := dialEtcd(ctx, dir, log)
	if err != nil {
		return fmt.Errorf("snapshot of the API server's store: %w", err)
	}
	defer client.Close()
	res, err := client.SnapshotWithVersion(ctx)
	if err != nil {
		return fmt.Errorf("snapshot of the API server's store: %w", err)
	}
	_, err = io.Copy(w, res.Snapshot)
	if err := errors.Join(err, res.Snapshot.Close()); err != nil {
		return fmt.Errorf("snapshot of the API server's store: %w", err)
	}
	return nil
}

// SnapshotStopped is Snapshot for a directory that no Server has, as the caller knows. It starts etcd on it
// meanwhile: what was acknowledged last may stand in the log alone.
func SnapshotStopped(ctx context.Context, dir string, w io.Writer, log *slog.Logger) error {
	etcd, err := startEtcd(ctx, dir, pki{dir: KeysDir(dir), now: time.Now}, etcdQuotaBytes, log)
	if err != nil {
		return err
	}
	defer etcd.stop()
	return Snapshot(ctx, dir, w, log)
}

// dialEtcd returns a client of the etcd of dir. The caller closes it.
func dialEtcd(ctx context.Context, dir string, log *slog.Logger) (*clientv3.Client, error) {
	endpoint, err := os.ReadFile(filepath.Join(dir, endpointFile))
	if err != nil {
		return nil, fmt.Errorf("find etcd: %w", err)
	}
	config, err := etcdTLS(dir)
	if err != nil {
		return nil, err
	}
	// A client tries again for ever, so whether etcd is there at all is asked first.
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", strings.TrimPrefix(string(endpoint), "https://"))
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w: is the hub running?", err)
	}
	_ = conn.Close()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{string(endpoint)}, DialTimeout: dialTimeout, TLS: config, Logger: zap.New(newZapCore(log)),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return client, nil
}

// etcdTLS is the configuration of a client that the etcd of dir knows.
func etcdTLS(dir string) (*tls.Config, error) {
	certs := pki{dir: KeysDir(dir)}
	own, authority := certs.files("etcd-client"), certs.files("etcd-ca")
	cert, err := tls.LoadX509KeyPair(own.cert, own.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for etcd: %w", err)
	}
	ca, err := os.ReadFile(authority.cert)
	if err != nil {
		return nil, fmt.Errorf("authority of etcd: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// revisionBump is by how much a restored store's revisions begin later than the snapshot's: more than
// anybody writes between a backup and its return. Clients that watched the lost store hold later revisions
// than the snapshot's; with the bump theirs are in the past and marked as compacted, so that they list anew.
const revisionBump = 1_000_000_000

// RestoreSnapshot makes the store of dir from a file that Snapshot wrote. There must be none yet. Of a file whose
// content does not match its checksum it takes nothing.
func RestoreSnapshot(dir, file string, log *slog.Logger) error {
	core := newZapCore(log)
	defer core.mute()
	err := snapshot.NewV3(zap.New(core)).Restore(snapshot.RestoreConfig{
		SnapshotPath:        file,
		Name:                etcdName,
		OutputDataDir:       filepath.Join(dir, etcdDir),
		PeerURLs:            []string{etcdPeer().String()},
		InitialCluster:      etcdName + "=" + etcdPeer().String(),
		InitialClusterToken: etcdToken,
		RevisionBump:        revisionBump,
		MarkCompacted:       true,
	})
	if err != nil {
		return fmt.Errorf("restore the API server's store: %w", err)
	}
	return nil
}
