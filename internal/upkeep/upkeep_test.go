package upkeep

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

const abc = fleet.Digest("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

func sample() Section {
	return Section{
		ID: "sha256:1/2", Version: "1.2.0", Repository: Repository, DeadlineSeconds: DefaultDeadline,
		Binaries: []Binary{{Arch: "arm64", Digest: abc, Size: 3}},
	}
}

// TestFrozen: agents of earlier releases read and write these. The files are never changed.
func TestFrozen(t *testing.T) {
	for file, v := range map[string]any{
		"section.json": sample(),
		"report.json":  Report{Version: "1.1.0", Digest: abc, ID: "sha256:1/2", Phase: PhaseFailed, Message: "it hangs"},
	} {
		want, err := os.ReadFile(filepath.Join("testdata", "v1", file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
			t.Errorf("%s is written differently (-frozen +now):\n%s", file, diff)
		}
	}
}

func TestSection(t *testing.T) {
	data, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSection(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for reason, change := range map[string]func(*Section){
		"no id":                       func(s *Section) { s.ID = "" },
		"an id without end":           func(s *Section) { s.ID = strings.Repeat("x", 200) },
		"nothing to run":              func(s *Section) { s.Binaries = nil },
		"more than there are":         func(s *Section) { s.Binaries = make([]Binary, MaxBinaries+1) },
		"no digest":                   func(s *Section) { s.Binaries[0].Digest = "sha256:x" },
		"no architecture":             func(s *Section) { s.Binaries[0].Arch = "" },
		"no size":                     func(s *Section) { s.Binaries[0].Size = 0 },
		"more than a disk may take":   func(s *Section) { s.Binaries[0].Size = MaxSize + 1 },
		"no time to become healthy":   func(s *Section) { s.DeadlineSeconds = 0 },
		"more time than anyone waits": func(s *Section) { s.DeadlineSeconds = MaxDeadline + 1 },
	} {
		s := sample()
		change(&s)
		data, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeSection(data); !errors.Is(err, wire.ErrMessage) {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

func FuzzDecodeSection(f *testing.F) {
	data, _ := sample().Encode()
	f.Add(data)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSection(data)
		if err != nil && !errors.Is(err, wire.ErrMessage) {
			t.Errorf("%v", err)
		}
		if err == nil {
			if _, err := s.Encode(); err != nil {
				t.Errorf("what was read cannot be written: %v", err)
			}
		}
	})
}

func TestReportOf(t *testing.T) {
	r := wire.Report{Modules: map[string]json.RawMessage{SectionName: json.RawMessage(`{"version":"1","phase":"Running"}`)}}
	if got := ReportOf(r); got.Version != "1" || got.Phase != PhaseRunning {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"", "[]", "nonsense"} {
		r.Modules[SectionName] = json.RawMessage(bad)
		if got := ReportOf(r); got != (Report{}) {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
