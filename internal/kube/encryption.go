package kube

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// encryptionFormat is an EncryptionConfiguration (apiserver.config.k8s.io/v1): Secrets are written with
// XSalsa20 and Poly1305; what was stored in the clear before can still be read.
const encryptionFormat = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: %s
  - identity: {}
`

// encryptionConfig returns the file that tells the API server how to encrypt Secrets at rest, making it
// with a new key at the first start. Without this file the stored Secrets cannot be read.
func encryptionConfig(dir string) (string, error) {
	path := filepath.Join(dir, "encryption.yaml")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("encryption of Secrets: %w", err)
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("make key for encryption of Secrets: %w", err)
	}
	return path, writeFile(path, fmt.Appendf(nil, encryptionFormat, base64.StdEncoding.EncodeToString(key)))
}
