package skerry

import (
	"iter"
	"strings"
)

// Get returns the value of key in the app's storage, ErrNotFound when there is none.
func Get(key string) ([]byte, error) {
	buf := make([]byte, 4<<10)
	for {
		n, code := host.get(key, buf)
		switch code {
		case codeOK:
			return buf[:n], nil
		case codeTooSmall:
			buf = make([]byte, n)
		case codeNotAtSite:
			return nil, ErrNotAtSite
		default:
			return nil, failure("get "+key, code)
		}
	}
}

// Put stores value as that of key. It is on the site's disk when Put returns.
func Put(key string, value []byte) error { return result("put "+key, host.put(key, value)) }

// Delete removes key, if it is there.
func Delete(key string) error { return result("delete "+key, host.del(key)) }

func result(what string, code uint32) error {
	if code == codeNotAtSite {
		return ErrNotAtSite
	}
	return failure(what, code)
}

// Keys yields the keys that begin with prefix, in the order of their bytes. After an error it ends.
func Keys(prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		buf := make([]byte, 16<<10)
		for after := ""; ; {
			n, code := host.list(prefix, after, buf)
			if err := result("list "+prefix, code); err != nil {
				yield("", err)
				return
			}
			if n == 0 {
				return
			}
			for key := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
				if !yield(key, nil) {
					return
				}
				after = key
			}
		}
	}
}
