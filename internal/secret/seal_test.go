package secret

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
)

var place = Context{Site: "shop-1", Member: "m-1", Namespace: "default", Name: "db", UID: "u-1", Version: "77"}

func newKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func seal(t testing.TB, key *ecdh.PrivateKey, values map[string]fleet.SecretValue) []byte {
	t.Helper()
	sealed, err := Seal(key.PublicKey().Bytes(), place, values)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// plain makes values comparable; a SecretValue prints nothing.
func plain(values map[string]fleet.SecretValue) map[string]string {
	out := map[string]string{}
	for key, value := range values {
		out[key] = string(value)
	}
	return out
}

func TestSealAndOpen(t *testing.T) {
	key := newKey(t)
	for name, values := range map[string]map[string]fleet.SecretValue{
		"nothing":       {},
		"one":           {"password": fleet.SecretValue("hunter2")},
		"empty values":  {"a": {}, "b": fleet.SecretValue("x")},
		"binary":        {"key": {0, 1, 2, 0xff}, "": fleet.SecretValue("no name")},
		"a large value": {"ca": bytes.Repeat([]byte("x"), 100_000)},
	} {
		sealed := seal(t, key, values)
		if len(sealed) != SealedSize(values) {
			t.Errorf("%s: %d bytes, SealedSize says %d", name, len(sealed), SealedSize(values))
		}
		got, err := Open(key, place, sealed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(plain(values), plain(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	one := map[string]fleet.SecretValue{"password": fleet.SecretValue("hunter2")}
	first, second := seal(t, key, one), seal(t, key, one)
	if bytes.Equal(first, second) {
		t.Error("the same values were sealed to the same bytes: who sees both knows that nothing changed")
	}
	if bytes.Contains(first, []byte("hunter2")) || bytes.Contains(first, []byte("password")) {
		t.Error("what was sealed holds the value or its key in the clear")
	}
	longer := map[string]fleet.SecretValue{"password": fleet.SecretValue("hunter2-and-more")}
	if len(seal(t, key, longer)) != len(first) {
		t.Error("the length of a password shows in what is sealed")
	}
}

// TestOpenRefuses moves sealed values to every other place, and changes every byte.
func TestOpenRefuses(t *testing.T) {
	key := newKey(t)
	sealed := seal(t, key, map[string]fleet.SecretValue{"password": fleet.SecretValue("hunter2")})
	places := map[string]func(*Context){
		"another site":      func(c *Context) { c.Site = "shop-2" },
		"another member":    func(c *Context) { c.Member = "m-2" },
		"another namespace": func(c *Context) { c.Namespace = "other" },
		"another name":      func(c *Context) { c.Name = "dc" },
		"a Secret of the same name that was made anew": func(c *Context) { c.UID = "u-2" },
		"an older version":                   func(c *Context) { c.Version = "76" },
		"letters moved from site to member":  func(c *Context) { c.Site, c.Member = "shop-1m", "-1" },
		"letters moved from name to uid":     func(c *Context) { c.Name, c.UID = "dbu", "-1" },
		"letters moved from namespace":       func(c *Context) { c.Namespace, c.Name = "defaul", "tdb" },
		"letters moved from version to none": func(c *Context) { c.UID, c.Version = "u-177", "" },
	}
	for reason, change := range places {
		c := place
		change(&c)
		if got, err := Open(key, c, sealed); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("opened as that of %s: %v", reason, err)
		}
	}
	if _, err := Open(newKey(t), place, sealed); !errors.Is(err, ErrOpen) {
		t.Errorf("opened with another key: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := Open(key, place, bad); !errors.Is(err, ErrOpen) {
			t.Fatalf("opened with byte %d changed: %v", i, err)
		}
	}
	for _, n := range []int{0, 1, 31, 32, len(sealed) - 1} {
		if _, err := Open(key, place, sealed[:n]); !errors.Is(err, ErrOpen) {
			t.Errorf("opened %d bytes of %d: %v", n, len(sealed), err)
		}
	}
	if _, err := Open(key, place, append(bytes.Clone(sealed), 0)); !errors.Is(err, ErrOpen) {
		t.Errorf("opened with a byte too many: %v", err)
	}
}

func TestSealRefusesKeys(t *testing.T) {
	for reason, key := range map[string][]byte{
		"none": nil, "short": make([]byte, 31), "long": make([]byte, 33), "a point of low order, which every secret is the same to": make([]byte, 32),
	} {
		if _, err := Seal(key, place, nil); err == nil || !strings.Contains(err.Error(), "m-1") {
			t.Errorf("a key that is %s was answered with %v", reason, err)
		}
	}
}

// TestFrozenSeal opens what protocol version 1 sealed: a site must be able to open what lies on its disk.
func TestFrozenSeal(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile("testdata/v1/" + name)
		if err != nil {
			t.Fatal(err)
		}
		out, err := hex.DecodeString(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	key, err := ecdh.X25519().NewPrivateKey(read("key.hex"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(key, place, read("sealed.hex"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"ca.pem": "line one\nline two\n", "password": "hunter2"}
	if diff := cmp.Diff(want, plain(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := hex.EncodeToString(place.info()); got != hex.EncodeToString(read("info.hex")) {
		t.Errorf("values are bound to other bytes: %s", got)
	}
}

func FuzzDecodeValues(f *testing.F) {
	f.Add(encodeValues(nil))
	f.Add(encodeValues(map[string]fleet.SecretValue{"a": fleet.SecretValue("b"), "c": {}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := decodeValues(data)
		if err != nil {
			if !errors.Is(err, ErrPlain) {
				t.Errorf("another kind of error: %v", err)
			}
			return
		}
		again, err := decodeValues(encodeValues(values))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(plain(values), plain(again)); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzOpen(f *testing.F) {
	key := newKey(f)
	f.Add(seal(f, key, map[string]fleet.SecretValue{"a": fleet.SecretValue("b")})[1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Open(key, place, data); err == nil {
			t.Errorf("%x was opened, which nobody sealed", data)
		}
	})
}
