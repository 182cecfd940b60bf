package natsserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
)

// keys are the identities of one NATS installation. Losing them is losing every credential; what
// JetStream holds is kept below the account's public key, so it is lost with that too.
type keys struct {
	operator, account, signing, system nkeys.KeyPair
}

// KeyFiles are the files below Options.Dir without which credentials that were issued hold no more, or that
// were revoked hold again. The rest of the directory is what JetStream holds.
func KeyFiles() []string {
	return []string{operatorFile, accountFile, signingFile, systemFile, revocationsFile}
}

const (
	operatorFile = "operator.seed"
	accountFile  = "account.seed"
	signingFile  = "signing.seed"
	systemFile   = "system.seed"
)

// loadKeys reads the seeds below dir and makes those that are not there.
func loadKeys(dir string) (keys, error) {
	var k keys
	for _, item := range []struct {
		name   string
		prefix nkeys.PrefixByte
		into   *nkeys.KeyPair
	}{
		{operatorFile, nkeys.PrefixByteOperator, &k.operator},
		{accountFile, nkeys.PrefixByteAccount, &k.account},
		{signingFile, nkeys.PrefixByteAccount, &k.signing},
		{systemFile, nkeys.PrefixByteAccount, &k.system},
	} {
		pair, err := loadSeed(filepath.Join(dir, item.name), item.prefix)
		if err != nil {
			return keys{}, err
		}
		*item.into = pair
	}
	return k, nil
}

func loadSeed(path string, prefix nkeys.PrefixByte) (nkeys.KeyPair, error) {
	seed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSeed(path, prefix)
	}
	if err != nil {
		return nil, fmt.Errorf("read key of the bus: %w", err)
	}
	got, _, err := nkeys.DecodeSeed(seed)
	if err == nil && got != prefix {
		err = fmt.Errorf("it is the seed of a key of type %s, want %s", got, prefix)
	}
	if err != nil {
		return nil, fmt.Errorf("key of the bus in %s: %w: restore the file from a backup", path, err)
	}
	return nkeys.FromSeed(seed)
}

func makeSeed(path string, prefix nkeys.PrefixByte) (nkeys.KeyPair, error) {
	pair, err := nkeys.CreatePair(prefix)
	if err != nil {
		return nil, fmt.Errorf("make key of the bus: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, fmt.Errorf("make key of the bus: %w", err)
	}
	return pair, writeFile(path, seed)
}

// writeFile replaces path by data, mode 0600, such that a crash leaves the old content or the new.
func writeFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncDir makes a rename within dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
