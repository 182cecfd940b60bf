package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
)

const digestABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

// frozen are messages with every field set, by the file that holds how protocol version 1 writes them.
// Programs of version 1 are at sites that nobody visits: these files are never changed. A field may be
// added to a message with a file of its own beside the old one, which must still be read.
func frozen() map[string]any {
	hw := fleet.Hardware{Hostname: "box", OS: "linux", Arch: "arm64", Kernel: "6.12.0", CPUs: 4, MemoryBytes: 8 << 30}
	return map[string]any{
		"manifest.json": Manifest{
			Protocol: 1, HubEpoch: "EPOCH", Generation: 7, Wipe: true,
			Sections: map[string]SectionRef{"apps": {Digest: digestABC, Size: 3}, "gateway": {Digest: digestABC, Size: 3}},
		},
		"report.json": Report{
			Protocol: 1, Site: "shop-1", Member: "m-1", Epoch: "SITE", Sequence: 12, HubEpoch: "EPOCH", Generation: 7, Wiped: true,
			Version: "1.2.3", Hardware: hw, Gateway: "http://127.0.0.1:8081", Problems: map[string]string{"sync": "cannot"},
			Modules: map[string]json.RawMessage{"apps": json.RawMessage(`{"apps":[]}`)},
		},
		"call.json":  Call{Protocol: 1, Stream: "ID", Body: json.RawMessage(`{"tail":10}`)},
		"reply.json": CallReply{Error: "no such app", Body: json.RawMessage(`{"ok":true}`)},
		"chunk.json": Chunk{Sequence: 9, Data: []byte("line\n"), End: true, Error: "gone"},
		"ack.json":   Ack{Stream: "ID", Sequence: 8, Cancel: true},
		"alive.json": Alive{Sequence: 12, Leaving: true},
		"enroll-request.json": EnrollRequest{
			Protocol: 1, TokenID: "id", TokenSecret: "secret", Site: "shop-1", Member: "m-1", PublicKey: []byte("public"),
			SealKey: []byte("seal"), Hardware: hw, Version: "1.2.3", Challenge: []byte("challenge"), Signature: []byte("signature"),
		},
		"enroll-response.json": EnrollResponse{
			Protocol: 1, Site: "shop-1", Member: "m-1", Certificate: "PEM", BusCredential: "JWT", HubTime: 100, NotBefore: 90,
			Expires: 1000, CA: "PEM", BusURLs: []string{"nats://hub:4222"},
		},
		"enroll-request-serving.json": EnrollRequest{
			Protocol: 1, TokenID: "id", TokenSecret: "secret", Site: "shop-1", Member: "m-1", PublicKey: []byte("public"),
			SealKey: []byte("seal"), Hardware: hw, Version: "1.2.3", ServingKey: []byte("serving"),
			ServingNames: []string{"shop.example.com", "192.0.2.1"}, Challenge: []byte("challenge"), Signature: []byte("signature"),
		},
		"enroll-request-hardware.json": EnrollRequest{
			Protocol: 1, TokenID: "id", TokenSecret: "secret", PublicKey: []byte("public"), SealKey: []byte("seal"),
			Hardware: fleet.Hardware{Hostname: "box", OS: "linux", Arch: "arm64", Fingerprint: "0123456789abcdef0123456789abcdef"},
			Version:  "1.2.3", Challenge: []byte("challenge"), Signature: []byte("signature"),
		},
		"enroll-response-serving.json": EnrollResponse{
			Protocol: 1, Site: "shop-1", Member: "m-1", Certificate: "PEM", BusCredential: "JWT", HubTime: 100, NotBefore: 90,
			Expires: 1000, CA: "PEM", BusURLs: []string{"nats://hub:4222"}, ServingCertificate: "PEM", GatewayCA: "PEM",
		},
		"enroll-response-authorities.json": EnrollResponse{
			Protocol: 1, Site: "shop-1", Member: "m-1", Certificate: "PEM", BusCredential: "JWT", HubTime: 100, NotBefore: 90,
			Expires: 1000, CA: "PEM", Authorities: "PEMPEM",
		},
		"alive-reason.json": Alive{Sequence: 12, Leaving: true, Reason: fleet.LeavingReboot},
		"report-neighbours.json": Report{
			Protocol: 1, Site: "shop-1", Member: "m-1", Epoch: "SITE", Sequence: 12, Neighbours: map[fleet.SiteName]bool{"shop-2": true, "shop-3": false},
		},
		"events.json": EventBatch{
			Protocol: 1, Site: "shop-1", Member: "m-1", Epoch: "SITE",
			Records: []EventRecord{
				{Sequence: 7, Event: fleet.Event{Class: fleet.ClassAlarm, Reason: "AppFailed", Message: "exited with status 3", App: fleet.AppKey{Namespace: "shop", Name: "till"}, Time: 1000}},
				{Sequence: 9, Event: fleet.Event{Class: fleet.ClassSample, Reason: "Traffic", Data: json.RawMessage(`{"requests":3}`)}},
			},
			Dropped: map[fleet.EventClass]uint64{fleet.ClassSample: 1},
		},
		"enroll-response-addresses.json": EnrollResponse{
			Protocol: 1, Site: "shop-1", Member: "m-1", Certificate: "PEM", BusCredential: "JWT", HubTime: 100, NotBefore: 90,
			Expires: 1000, CA: "PEM", HubURLs: []string{"https://hub.example.com:7443"},
		},
		"enroll-refusal-claim.json": EnrollRefusal{Reason: RefusedPending, Message: "wait"},
		"enroll-refusal.json":       EnrollRefusal{Reason: RefusedChallenge, Message: "sign this", Challenge: []byte("challenge")},
	}
}

func TestFrozenMessages(t *testing.T) {
	for file, message := range frozen() {
		t.Run(file, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", "v1", file))
			if err != nil {
				t.Fatal(err)
			}
			want = bytes.TrimSpace(want)
			got, err := json.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("protocol version %d writes this message differently (-frozen +now):\n%s", Protocol, diff)
			}
			read := reflect.New(reflect.TypeOf(message))
			if err := DecodeJSON(file, want, read.Interface()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(message, read.Elem().Interface()); diff != "" {
				t.Errorf("the frozen message is read differently (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFrozenIsWhole fails when a field was added to a message without being frozen: some file of its kind
// must hold it.
func TestFrozenIsWhole(t *testing.T) {
	held := map[reflect.Type]map[string]bool{}
	for _, message := range frozen() {
		v := reflect.ValueOf(message)
		if held[v.Type()] == nil {
			held[v.Type()] = map[string]bool{}
		}
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				held[v.Type()][v.Type().Field(i).Name] = true
			}
		}
	}
	for kind, fields := range held {
		for i := range kind.NumField() {
			if name := kind.Field(i).Name; !fields[name] {
				t.Errorf("no frozen %s holds field %s", kind.Name(), name)
			}
		}
	}
}

func TestFrozenSubjects(t *testing.T) {
	var lines []string
	for _, s := range []string{
		DesiredSubject("shop-1", ManifestSection), DesiredSubject("shop-1", "apps"), DesiredPattern("shop-1"), HubEpochSubject,
		HintSubject("shop-1"), AliveSubject("shop-1", "m-1"), ReportSubject("shop-1", "m-1"), ReportPattern("shop-1"),
		CallSubject("shop-1", "m-1", "app-logs"), CallSubject("shop-1", "m-1", MethodAck), CallPattern("shop-1", "m-1"),
		StreamSubject("shop-1", "m-1", "ID"), StreamPattern("shop-1", "m-1"), InboxPrefix("shop-1", "m-1"),
		AllDesired, AllReports, AllAlive, StreamDesired + " " + Stored()[StreamDesired], StreamReports + " " + Stored()[StreamReports],
		PathEnroll, PathRenew, PathBus, PathRegistry, HubURI,
	} {
		lines = append(lines, s+"\n")
	}
	want, err := os.ReadFile("testdata/v1/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), strings.Join(lines, "")); diff != "" {
		t.Errorf("protocol version %d names something differently (-frozen +now):\n%s", Protocol, diff)
	}
}

// TestFrozenPin: who reads an address of the hub and who wrote it may be releases apart.
func TestFrozenPin(t *testing.T) {
	digest := [32]byte{1, 2, 3}
	const address, pinned = "https://hub.example.com:7443", "https://hub.example.com:7443/ca/AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	if got := WithPin(address, digest); got != pinned {
		t.Errorf("it is written as %s", got)
	}
	tests := []struct {
		reason, path, without string
		ok                    bool
	}{
		{"an address", pinned, address, true},
		{"a path of it", pinned + "/enroll/v1/join", address + "/enroll/v1/join", true},
		{"a path of the hub's own", "/ca/AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/v2/", "/v2/", true},
		{"none", address, address, false},
		{"no digest", "/ca/x/v2/", "/ca/x/v2/", false},
		{"a digest that is cut short", pinned[:len(pinned)-2], pinned[:len(pinned)-2], false},
		{"nothing after it", "/ca/", "/ca/", false},
	}
	for _, tt := range tests {
		without, got, ok := CutPin(tt.path)
		if without != tt.without || ok != tt.ok || ok && got != digest {
			t.Errorf("%s: %s, %x, %v", tt.reason, without, got, ok)
		}
	}
}

func TestFrozenSignedBytes(t *testing.T) {
	for file, signed := range map[string]string{
		"enroll-request.json": "enroll-signed.hex", "enroll-request-serving.json": "enroll-signed-serving.hex",
	} {
		request, ok := frozen()[file].(EnrollRequest)
		if !ok {
			t.Fatalf("%s is no request", file)
		}
		want, err := os.ReadFile(filepath.Join("testdata", "v1", signed))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(EnrollSigned(request)); got != strings.TrimSpace(string(want)) {
			t.Errorf("what a member signs has changed:\nfrozen %s\nnow    %s", want, got)
		}
	}
}

// TestSignedBytesBindEveryPart moves bytes from each part of a request to its neighbour and changes each:
// no two requests may share a signature.
func TestSignedBytesBindEveryPart(t *testing.T) {
	base := EnrollRequest{TokenID: "ab", Site: "cd", Member: "ef", PublicKey: []byte("gh"), SealKey: []byte("ij"), Challenge: []byte("kl")}
	changes := map[string]func(*EnrollRequest){
		"token":             func(r *EnrollRequest) { r.TokenID = "ax" },
		"site":              func(r *EnrollRequest) { r.Site = "cx" },
		"member":            func(r *EnrollRequest) { r.Member = "ex" },
		"public key":        func(r *EnrollRequest) { r.PublicKey = []byte("gx") },
		"seal key":          func(r *EnrollRequest) { r.SealKey = []byte("ix") },
		"challenge":         func(r *EnrollRequest) { r.Challenge = []byte("kx") },
		"token to site":     func(r *EnrollRequest) { r.TokenID, r.Site = "a", "bcd" },
		"site to member":    func(r *EnrollRequest) { r.Site, r.Member = "c", "def" },
		"member to key":     func(r *EnrollRequest) { r.Member, r.PublicKey = "e", []byte("fgh") },
		"key to seal key":   func(r *EnrollRequest) { r.PublicKey, r.SealKey = []byte("g"), []byte("hij") },
		"seal to challenge": func(r *EnrollRequest) { r.SealKey, r.Challenge = []byte("i"), []byte("jkl") },
		"without seal key":  func(r *EnrollRequest) { r.SealKey = nil },
		"with serving key":  func(r *EnrollRequest) { r.ServingKey = []byte("mn") },
		"another":           func(r *EnrollRequest) { r.ServingKey = []byte("mx") },
		"with a name":       func(r *EnrollRequest) { r.ServingKey, r.ServingNames = []byte("mn"), []string{"op"} },
		"with another":      func(r *EnrollRequest) { r.ServingKey, r.ServingNames = []byte("mn"), []string{"ox"} },
		"one name as two":   func(r *EnrollRequest) { r.ServingKey, r.ServingNames = []byte("mn"), []string{"o", "p"} },
		"in another order":  func(r *EnrollRequest) { r.ServingKey, r.ServingNames = []byte("mn"), []string{"p", "o"} },
		"key to name":       func(r *EnrollRequest) { r.ServingKey, r.ServingNames = []byte("m"), []string{"nop"} },
		"challenge to key": func(r *EnrollRequest) {
			r.Challenge, r.ServingKey, r.ServingNames = []byte("k"), []byte("lmn"), []string{"op"}
		},
	}
	seen := map[string]string{string(EnrollSigned(base)): "the request itself"}
	for name, change := range changes {
		r := base
		change(&r)
		signed := string(EnrollSigned(r))
		if other, ok := seen[signed]; ok {
			t.Errorf("%q signs the same bytes as %q", name, other)
		}
		seen[signed] = name
	}
	// What is not signed must not be: a newer peer may add to it.
	r := base
	r.Version, r.Hardware.Hostname, r.Signature = "9", "x", []byte("s")
	r.ServingNames = []string{"means nothing without a key"}
	if !bytes.Equal(EnrollSigned(r), EnrollSigned(base)) {
		t.Error("a field that is not part of the signature changes it")
	}
}

func TestFrozenEvents(t *testing.T) {
	got := strings.Join([]string{
		EventsSubject("shop-1", "m-1"), EventsPattern("shop-1"), AllEvents, StreamEvents + " " + Stored()[StreamEvents],
		string(fleet.ClassAlarm), string(fleet.ClassEvent), string(fleet.ClassSample),
	}, "\n") + "\n"
	want, err := os.ReadFile("testdata/v1/names-events.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("protocol version %d names something differently (-frozen +now):\n%s", Protocol, diff)
	}
}

func TestFrozenClaims(t *testing.T) {
	got := strings.Join([]string{PathClaim, RefusedPending, RefusedDenied, RefusedHardware}, "\n") + "\n"
	want, err := os.ReadFile("testdata/v1/names-claim.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("protocol version %d names something differently (-frozen +now):\n%s", Protocol, diff)
	}
}
