package enroll

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample() Token {
	return NewToken([]string{"https://hub.example.com:7443", "https://192.0.2.1"}, [32]byte{1, 2, 3}, time.Unix(1_800_000_000, 0))
}

func TestTokenRoundTrip(t *testing.T) {
	want := sample()
	text := want.Text()
	if strings.ContainsAny(text, " \n\t") || len(text) > 300 {
		t.Errorf("%d characters, want one short line", len(text))
	}
	got, err := ParseToken("  " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Issued.Equal(want.Issued) || got.Secret != want.Secret {
		t.Error("time or secret came back changed")
	}
	if diff := cmp.Diff(want.URLs, got.URLs); diff != "" || got.ID != want.ID || got.CA != want.CA {
		t.Errorf("came back changed: %s", diff)
	}
}

func TestTokenRefusesWhatItIsNot(t *testing.T) {
	good := sample().Text()
	with := func(change func(*Token)) string {
		token := sample()
		change(&token)
		return token.Text()
	}
	tests := []struct{ reason, text string }{
		{"nothing", ""},
		{"another format", "eyJhbGciOi"},
		{"the prefix alone", tokenPrefix},
		{"a later version", "skj2." + strings.TrimPrefix(good, tokenPrefix)},
		{"half of it", good[:len(good)/2]},
		{"all but the last character", good[:len(good)-1]},
		{"one character more", good + "A"},
		{"one character changed", good[:40] + string(good[40]^1) + good[41:]},
		{"padding", good + "="},
		{"a line break within", good[:20] + "\n" + good[20:]},
		{"no address", with(func(t *Token) { t.URLs = nil })},
		{"too many addresses", with(func(t *Token) { t.URLs = make([]string, 9) })},
		{"an address without TLS", with(func(t *Token) { t.URLs = []string{"http://hub"} })},
		{"an address with a password", with(func(t *Token) { t.URLs = []string{"https://a:b@hub"} })},
		{"an address without end", with(func(t *Token) { t.URLs = []string{"https://" + strings.Repeat("a", 600)} })},
		{"an id that is no name", with(func(t *Token) { t.ID = "../../x" })},
		{"more than any token", tokenPrefix + strings.Repeat("A", 10_000)},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			_, err := ParseToken(tt.text)
			if !errors.Is(err, ErrToken) {
				t.Fatalf("got error %v", err)
			}
			if len(tt.text) > 20 && strings.Contains(err.Error(), tt.text[10:20]) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	token := sample()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", token, "pointer", &token, "secret", token.Secret, "struct", struct{ T Token }{token})
	shown := log.String()
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b"} {
		shown += fmt.Sprintf(format+format+format, token, &token, token.Secret)
	}
	asJSON, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	shown = strings.ToLower(shown + string(asJSON))
	raw := token.Secret[:]
	for how, secret := range map[string]string{
		"hexadecimal": fmt.Sprintf("%x", raw[:8]),
		"base64":      strings.ToLower(base64.StdEncoding.EncodeToString(raw[:9])),
		"decimal":     strings.Trim(fmt.Sprint(raw[:6]), "[]"),
		"Go":          strings.Trim(fmt.Sprintf("%#v", raw[:4]), "[]byte{}"),
		"bytes":       strings.ToLower(string(raw[:8])),
	} {
		if strings.Contains(shown, secret) {
			t.Errorf("the secret is shown in %s", how)
		}
	}
	if !strings.Contains(shown, token.ID) {
		t.Error("the id, which is no secret, is not shown")
	}
}

func TestTokensDiffer(t *testing.T) {
	a, b := sample(), sample()
	if a.ID == b.ID || a.Secret == b.Secret || a.Secret.Hash() == b.Secret.Hash() {
		t.Error("two tokens share a part that must be their own")
	}
}

// FuzzParseToken checks that nothing panics and that what is taken is what Text would write.
func FuzzParseToken(f *testing.F) {
	f.Add(sample().Text())
	f.Add(tokenPrefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		switch {
		case err != nil && !errors.Is(err, ErrToken):
			t.Errorf("error %v does not wrap ErrToken", err)
		case err == nil && token.Text() != strings.TrimSpace(text):
			t.Errorf("two texts for one token")
		}
	})
}
