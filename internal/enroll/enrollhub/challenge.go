package enrollhub

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// challengeLife is how long a challenge may be answered.
const challengeLife = time.Minute

// challenges makes and checks challenges without remembering any: a challenge is the hub's time, random
// bytes and a MAC over both. It shows that a signature was made just now; using one twice within its life
// gives only what the first use gave, and only to the holder of the key.
type challenges struct{ key []byte }

const (
	challengeBody = 8 + 16
	challengeSize = challengeBody + sha256.Size
)

func (c challenges) make(now time.Time) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, challengeSize), uint64(now.Unix()))
	b = b[:challengeBody]
	rand.Read(b[8:])
	return c.mac(b)
}

func (c challenges) valid(b []byte, now time.Time) bool {
	if len(b) != challengeSize || !hmac.Equal(b, c.mac(b[:challengeBody:challengeBody])) {
		return false
	}
	age := now.Sub(time.Unix(int64(binary.BigEndian.Uint64(b)), 0))
	return age > -challengeLife && age < challengeLife
}

// mac returns body with its MAC appended.
func (c challenges) mac(body []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte("skerry challenge v1\n"))
	h.Write(body)
	return h.Sum(body)
}
