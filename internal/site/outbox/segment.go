package outbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// segment is one file of records of one class. Its name is the class, a dash, and the number of its first
// record in 16 hexadecimal digits.
type segment struct {
	path  string
	class fleet.EventClass
	first uint64
	last  uint64
	// size is how far it is whole.
	size    int64
	torn    bool // something lies beyond
	numbers []uint64
	file    *os.File // nil until it is appended to
}

// headerSize is the length of a record and its CRC-32C, four bytes each, the highest first.
const headerSize = 8

// maxRecord bounds one record on the disk: an event of the greatest size, written as JSON with every character
// escaped.
const maxRecord = 64 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// full reports whether an error says that the disk has no room.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func createSegment(dir string, class fleet.EventClass, first uint64) (*segment, error) {
	path := filepath.Join(dir, fmt.Sprintf("%s-%016x", class, first))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &segment{path: path, class: class, first: first, file: f}, nil
}

// append writes records behind the last and returns when they are on the disk, or takes none of them.
func (s *segment) append(records []wire.EventRecord) error {
	if s.file == nil {
		f, err := os.OpenFile(s.path, os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		s.file = f
	}
	var out []byte
	for _, r := range records {
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("record %d: %w", r.Sequence, err)
		}
		out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
		out = binary.BigEndian.AppendUint32(out, crc32.Checksum(data, castagnoli))
		out = append(out, data...)
	}
	if s.torn {
		if err := s.file.Truncate(s.size); err != nil {
			return err
		}
	}
	s.torn = true
	_, err := s.file.WriteAt(out, s.size)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return err
	}
	s.torn = false
	s.size += int64(len(out))
	for _, r := range records {
		s.numbers = append(s.numbers, r.Sequence)
	}
	s.last = records[len(records)-1].Sequence
	return nil
}

// after is how many records have a number above acked.
func (s *segment) after(acked uint64) uint64 {
	return uint64(len(s.numbers) - sort.Search(len(s.numbers), func(i int) bool { return s.numbers[i] > acked }))
}

// records reads those with a number above acked.
func (s *segment) records(acked uint64) ([]wire.EventRecord, error) {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return nil, err
	}
	var out []wire.EventRecord
	scan(data[:min(int64(len(data)), s.size)], func(r wire.EventRecord) {
		if r.Sequence > acked {
			out = append(out, r)
		}
	})
	return out, nil
}

// scan calls fn for every record that is whole and greater than the one before it, and returns up to where
// records can be told apart and how many were left out as damaged.
func scan(data []byte, fn func(wire.EventRecord)) (end int64, damaged int) {
	var last uint64
	for int64(len(data))-end >= headerSize {
		n := int64(binary.BigEndian.Uint32(data[end:]))
		sum := binary.BigEndian.Uint32(data[end+4:])
		if n == 0 || n > maxRecord || end+headerSize+n > int64(len(data)) {
			return end, damaged
		}
		body := data[end+headerSize : end+headerSize+n]
		end += headerSize + n
		var r wire.EventRecord
		if crc32.Checksum(body, castagnoli) != sum || json.Unmarshal(body, &r) != nil || r.Sequence <= last {
			damaged++
			continue
		}
		last = r.Sequence
		fn(r)
	}
	return end, damaged
}

func (s *segment) remove() error {
	return errors.Join(s.close(), os.Remove(s.path))
}

func (s *segment) close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// findSegments reads the files of a directory. Those that hold nothing are removed, ends that are torn cut off.
func findSegments(dir string, log *slog.Logger) ([]*segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []*segment
	for _, e := range entries {
		class, hex, ok := strings.Cut(e.Name(), "-")
		first, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil || len(hex) != 16 {
			continue
		}
		s := &segment{path: filepath.Join(dir, e.Name()), class: fleet.EventClass(class), first: first}
		if err := s.load(log); err != nil {
			log.Error("a file of the outbox cannot be read and is left out", "file", s.path, "error", err)
			continue
		}
		if len(s.numbers) == 0 {
			// Left by a crash before its first record. When it cannot be removed it is found again.
			if err := s.remove(); err != nil {
				log.Warn("an empty file of the outbox stays", "file", s.path, "error", err)
			}
			continue
		}
		found = append(found, s)
	}
	return found, nil
}

func (s *segment) load(log *slog.Logger) error {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	end, damaged := scan(data, func(r wire.EventRecord) {
		s.numbers = append(s.numbers, r.Sequence)
		s.last = r.Sequence
	})
	s.size = end
	if damaged > 0 {
		log.Error("events in the outbox are damaged and left out", "file", s.path, "count", damaged)
	}
	if end == int64(len(data)) {
		return nil
	}
	s.torn = true
	log.Warn("the end of a file of the outbox was torn and is left out", "file", s.path, "bytes", int64(len(data))-end)
	return nil
}
