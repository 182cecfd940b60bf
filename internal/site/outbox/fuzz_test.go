package outbox

import (
	"testing"

	"github.com/skerry-dev/skerry/internal/wire"
)

// FuzzScan reads files as a damaged disk may return them.
func FuzzScan(f *testing.F) {
	dir := f.TempDir()
	s, err := createSegment(dir, "event", 1)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.append([]wire.EventRecord{{Sequence: 1}, {Sequence: 2}}); err != nil {
		f.Fatal(err)
	}
	data := make([]byte, s.size)
	if _, err := s.file.ReadAt(data, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var last uint64
		end, _ := scan(data, func(r wire.EventRecord) {
			if r.Sequence <= last {
				t.Errorf("record %d after %d", r.Sequence, last)
			}
			last = r.Sequence
		})
		if end < 0 || end > int64(len(data)) {
			t.Errorf("scan of %d bytes ends at %d", len(data), end)
		}
	})
}
