package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func frozen() Section {
	return Section{
		BytesPerSecond: 65536, TimeZone: "Europe/Berlin",
		Hours:      []Window{{Days: []string{"mon", "tue"}, From: "22:00", To: "05:00"}},
		Neighbours: []Neighbour{{Site: "shop-2", Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}, Addresses: []string{"192.0.2.7:7444"}}},
	}
}

func TestFrozen(t *testing.T) {
	for file, v := range map[string]any{
		"testdata/v1/section.json": frozen(),
		"testdata/v1/report.json":  Report{Addresses: []string{"192.0.2.7:7444"}, Waiting: "until 22:00"},
	} {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(got)); diff != "" {
			t.Errorf("%s is written differently (-frozen +now):\n%s", file, diff)
		}
	}
	data, err := os.ReadFile("testdata/v1/section.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSection(data)
	if diff := cmp.Diff(frozen(), got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestOpen(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	// 2026-03-27 is a Friday; on Sunday the 29th clocks go from 2:00 to 3:00.
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 3, day, hour, minute, 0, 0, berlin) }
	night := Section{TimeZone: "Europe/Berlin", Hours: []Window{{Days: []string{"fri", "sat"}, From: "22:00", To: "05:00"}}}
	noon := Section{TimeZone: "Europe/Berlin", Hours: []Window{{From: "12:00", To: "13:00"}, {From: "23:00", To: "24:00"}}}
	for _, row := range []struct {
		reason string
		s      Section
		t      time.Time
		want   bool
	}{
		{"without hours always", Section{}, at(27, 3, 0), true},
		{"also when nobody knows the time", Section{}, time.Time{}, true},
		{"with hours never when nobody knows the time", noon, time.Time{}, false},
		{"the first moment", night, at(27, 22, 0), true},
		{"the moment before", night, at(27, 21, 59), false},
		{"past midnight it is still Friday's", night, at(28, 4, 59), true},
		{"the moment after", night, at(28, 5, 0), false},
		{"the night to Friday is Thursday's", night, at(27, 3, 0), false},
		{"the night in which an hour is missing is Saturday's", night, at(29, 3, 30), true},
		{"and ends by the clock on the wall", night, at(29, 5, 0), false},
		{"another window", noon, at(27, 12, 30), true},
		{"to midnight", noon, at(27, 23, 59), true},
		{"after midnight", noon, at(28, 0, 0), false},
		{"a time in another zone", noon, time.Date(2026, 3, 27, 11, 30, 0, 0, time.UTC), true},
	} {
		if got := row.s.Open(row.t); got != row.want {
			t.Errorf("%s: open is %v at %v", row.reason, got, row.t)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, row := range []struct {
		reason string
		change func(*Section)
	}{
		{"less than arrives in any time", func(s *Section) { s.BytesPerSecond = 10 }},
		{"less than nothing", func(s *Section) { s.BytesPerSecond = -1 }},
		{"a zone that there is not", func(s *Section) { s.TimeZone = "Europe/Nowhere" }},
		{"a day that there is not", func(s *Section) { s.Hours[0].Days = []string{"monday"} }},
		{"a time that there is not", func(s *Section) { s.Hours[0].From = "25:00" }},
		{"a time with seconds", func(s *Section) { s.Hours[0].To = "5:00" }},
		{"no time at all", func(s *Section) { s.Hours[0].To = "22:00" }},
		{"too many windows", func(s *Section) { s.Hours = make([]Window, MaxWindows+1) }},
		{"a key that is none", func(s *Section) { s.Neighbours[0].Keys = [][]byte{{1}} }},
		{"a name as an address", func(s *Section) { s.Neighbours[0].Addresses = []string{"metadata.internal:80"} }},
		{"no port", func(s *Section) { s.Neighbours[0].Addresses = []string{"192.0.2.1"} }},
		{"every address", func(s *Section) { s.Neighbours[0].Addresses = []string{"0.0.0.0:80"} }},
		{"a site that cannot be", func(s *Section) { s.Neighbours[0].Site = "A" }},
	} {
		s := frozen()
		row.change(&s)
		data, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeSection(data); !errors.Is(err, ErrSection) {
			t.Errorf("%s: got %v", row.reason, err)
		}
	}
	if data, err := (Section{TimeZone: "Europe/Berlin"}).Encode(); data != nil || err != nil {
		t.Errorf("rules that say nothing are %s, %v", data, err)
	}
}

func FuzzDecodeSection(f *testing.F) {
	data, err := frozen().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSection(data)
		if err != nil {
			return
		}
		s.Open(time.Unix(1_000_000, 0))
		_ = s.Describe()
	})
}
