package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestManifestNewer(t *testing.T) {
	tests := []struct {
		epoch      string
		generation uint64
		want       bool
		reason     string
	}{
		{"A", 6, true, "a higher generation replaces a lower one"},
		{"A", 5, false, "the same generation says the same"},
		{"A", 4, false, "a late message must not bring back what was replaced"},
		{"B", 1, true, "a hub that lost its memory begins to count again"},
		{"B", 5, true, "generations are compared only within an epoch"},
		{"", 1, true, "an epoch that is not known is another one"},
	}
	old := Manifest{HubEpoch: "A", Generation: 5}
	for _, tt := range tests {
		if got := (Manifest{HubEpoch: tt.epoch, Generation: tt.generation}).Newer(old); got != tt.want {
			t.Errorf("%s/%d newer than A/5 = %v: %s", tt.epoch, tt.generation, got, tt.reason)
		}
	}
	if !(Manifest{HubEpoch: "A", Generation: 1}).Newer(Manifest{}) {
		t.Error("a site that has no manifest does not take its first")
	}
}

func TestReportNewer(t *testing.T) {
	tests := []struct {
		member   fleet.MemberID
		epoch    string
		sequence uint64
		want     bool
		reason   string
	}{
		{"m", "A", 6, true, "a higher sequence replaces a lower one"},
		{"m", "A", 5, false, "a report that was sent twice is one report"},
		{"m", "A", 4, false, "a late report must not bring back what was"},
		{"m", "B", 1, true, "a machine with a new disk counts from one"},
		{"n", "A", 1, true, "another member reports for the site now"},
	}
	old := Report{Member: "m", Epoch: "A", Sequence: 5}
	for _, tt := range tests {
		if got := (Report{Member: tt.member, Epoch: tt.epoch, Sequence: tt.sequence}).Newer(old); got != tt.want {
			t.Errorf("%s/%s/%d newer than m/A/5 = %v: %s", tt.member, tt.epoch, tt.sequence, got, tt.reason)
		}
	}
}

func manyRefs(n int) string {
	var refs []string
	for i := range n {
		refs = append(refs, fmt.Sprintf(`"s%d":{"digest":%q,"size":1}`, i, digestABC))
	}
	return "{" + strings.Join(refs, ",") + "}"
}

func TestDecodeManifest(t *testing.T) {
	section := func(name, ref string) string {
		return fmt.Sprintf(`{"protocol":1,"hubEpoch":"e","generation":1,"sections":{%q:%s}}`, name, ref)
	}
	good := `{"digest":"` + digestABC + `","size":1}`
	tests := []struct {
		in, want, reason string
	}{
		{`{"protocol":1,"hubEpoch":"e","generation":1}`, "", "a site may be told to run nothing"},
		{`{"protocol":1,"hubEpoch":"e","generation":1,"later":true}`, "", "a newer hub may say more within a protocol"},
		{section("apps", good), "", "a section by name"},
		{`{"protocol":1,"hubEpoch":"e","generation":1,"sections":` + manyRefs(MaxSections) + `}`, "", "as many sections as are allowed"},
		{`{"protocol":2,"hubEpoch":"e","generation":1}`, "upgrade", "a newer protocol may mean something else by the same words"},
		{`{"protocol":0,"hubEpoch":"e","generation":1}`, "protocol 0", "no protocol is none of ours"},
		{`{"protocol":-1,"hubEpoch":"e","generation":1}`, "protocol -1", "nor is one below"},
		{`{"protocol":1,"generation":1}`, "hubEpoch", "without an epoch nothing can be ordered"},
		{`{"protocol":1,"hubEpoch":"e"}`, "generation", "without a generation nothing can be ordered"},
		{`{"protocol":1,"hubEpoch":"e","generation":-1}`, "generation", "generations count up from one"},
		{section("manifest", good), `"manifest"`, "a section of that name would be the manifest itself"},
		{section("a.b", good), `"a.b"`, "a section is one token of a subject"},
		{section(">", good), `">"`, "a wildcard would read every section"},
		{section("", good), "section", "an empty token is none"},
		{section("../x", good), "section", "a section's name is a key of the store"},
		{section("apps", `{"digest":"sha256:00","size":1}`), `"apps"`, "a digest that names nothing can never be fetched"},
		{section("apps", `{"digest":"`+digestABC+`","size":-1}`), "size", "no body has less than no bytes"},
		{section("apps", `{"digest":"`+digestABC+`","size":262145}`), "size", "a larger body cannot travel"},
		{`{"protocol":1,"hubEpoch":"e","generation":1,"sections":` + manyRefs(MaxSections+1) + `}`, "65 sections", "one section more than is allowed"},
		{`{"protocol":1,"hubEpoch":"e","generation":1}{}`, "manifest", "nothing may follow"},
		{``, "manifest", "nothing is no manifest"},
		{`null`, "protocol", "null is no manifest"},
		{`[]`, "manifest", "a list is no manifest"},
		{strings.Repeat(" ", MaxMessage) + `{}`, "262146 bytes", "what is larger than a message is not read"},
	}
	for _, tt := range tests {
		_, err := DecodeManifest([]byte(tt.in))
		checkDecoded(t, tt.in, tt.want, tt.reason, err)
	}
}

// checkDecoded wants no error when want is empty, and else one that holds want and wraps ErrMessage.
func checkDecoded(t *testing.T, in, want, reason string, err error) {
	t.Helper()
	in = in[:min(len(in), 120)]
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v: %s", in, err, reason)
	case want != "" && err == nil:
		t.Errorf("%s was accepted: %s", in, reason)
	case err != nil && !errors.Is(err, ErrMessage):
		t.Errorf("%s: error does not wrap ErrMessage: %v", in, err)
	case err != nil && !strings.Contains(err.Error(), want):
		t.Errorf("%s: error does not name %s: %v", in, want, err)
	}
}

func TestDecodeReport(t *testing.T) {
	tests := []struct{ in, want, reason string }{
		{`{"protocol":1,"site":"a","member":"m","epoch":"e","sequence":1,"hardware":{}}`, "", "the least that a report says"},
		{`{"protocol":1,"site":"a","member":"m","epoch":"e","sequence":1,"later":{}}`, "", "a newer agent may say more within a protocol"},
		{`{"protocol":9,"site":"a","member":"m","epoch":"e","sequence":1}`, "upgrade", "a newer protocol is not understood"},
		{`{"protocol":1,"site":"A","member":"m","epoch":"e","sequence":1}`, `site "A"`, "the name of a site is checked"},
		{`{"protocol":1,"site":"a","member":"","epoch":"e","sequence":1}`, "member", "the id of a member is checked"},
		{`{"protocol":1,"site":"a","member":"m","sequence":1}`, "epoch", "without an epoch nothing can be ordered"},
		{`{"protocol":1,"site":"a","member":"m","epoch":"e"}`, "sequence", "sequences start at one"},
		{`{"protocol":1,"site":"a","member":"m","epoch":"e","sequence":1,"modules":{"apps":}}`, "report", "a module's part is JSON"},
		{`x`, "report", "bytes that are no JSON"},
	}
	for _, tt := range tests {
		_, err := DecodeReport([]byte(tt.in))
		checkDecoded(t, tt.in, tt.want, tt.reason, err)
	}
}

func TestDecodeCallAndAck(t *testing.T) {
	calls := []struct{ in, want, reason string }{
		{`{"protocol":1}`, "", "a call needs no body"},
		{`{"protocol":1,"stream":"ABC-x_1","body":{"a":1}}`, "", "a call with a stream"},
		{`{"protocol":2}`, "upgrade", "a newer protocol is not understood"},
		{`{}`, "protocol", "no protocol is none of ours"},
		{`{"protocol":1,"stream":"a.b"}`, "stream", "the id is one token of a subject"},
		{`{"protocol":1,"stream":"*"}`, "stream", "the id is no wildcard"},
		{`{"protocol":1,"stream":"` + strings.Repeat("a", 64) + `"}`, "stream", "the id is bounded"},
		{`{"protocol":1`, "call", "a call that was cut off"},
	}
	for _, tt := range calls {
		_, err := DecodeCall([]byte(tt.in))
		checkDecoded(t, tt.in, tt.want, tt.reason, err)
	}
	acks := []struct{ in, want, reason string }{
		{`{"stream":"A","sequence":4}`, "", "an acknowledgement"},
		{`{"sequence":4}`, "stream", "it must say of which stream"},
		{`{"stream":"a b"}`, "stream", "the id is one token"},
		{`{"stream":"A","sequence":-4}`, "ack", "sequences are not negative"},
		{`7`, "ack", "a number is none"},
	}
	for _, tt := range acks {
		_, err := DecodeAck([]byte(tt.in))
		checkDecoded(t, tt.in, tt.want, tt.reason, err)
	}
}

func TestEncodeSetsProtocolAndBoundsSize(t *testing.T) {
	data, err := Manifest{HubEpoch: "e", Generation: 1}.Encode()
	if err != nil || !bytes.Contains(data, []byte(`"protocol":1`)) {
		t.Errorf("manifest: %s, %v", data, err)
	}
	data, err = Report{Site: "a", Member: "m", Epoch: "e", Sequence: 1}.Encode()
	if err != nil || !bytes.Contains(data, []byte(`"protocol":1`)) {
		t.Errorf("report: %s, %v", data, err)
	}
	data, err = Call{}.Encode()
	if err != nil || !bytes.Contains(data, []byte(`"protocol":1`)) {
		t.Errorf("call: %s, %v", data, err)
	}
	large := Report{Site: "a", Member: "m", Epoch: "e", Sequence: 1, Problems: map[string]string{"a": strings.Repeat("x", MaxMessage)}}
	if _, err := large.Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a report beyond the bound was answered with %v", err)
	}
	if _, err := EncodeJSON("function", func() {}); err == nil {
		t.Error("a value that is no JSON was encoded")
	}
	// A full part of a stream must fit a message.
	if _, err := EncodeJSON("chunk", Chunk{Sequence: 1, Data: bytes.Repeat([]byte{255}, MaxChunk)}); err != nil {
		t.Error(err)
	}
}

func TestParseSubjects(t *testing.T) {
	tests := []struct {
		subject string
		ok      bool
		reason  string
	}{
		{DesiredSubject("shop-1", "apps"), true, "what DesiredSubject made"},
		{HubEpochSubject, false, "the hub's own record is no site's"},
		{DesiredPattern("shop-1"), false, "a pattern is no subject"},
		{DesiredSubject("*", "apps"), false, "a wildcard is no site"},
		{DesiredSubject("shop-1", "a.b"), false, "a section is one token"},
		{DesiredSubject("", "apps"), false, "an empty token is no site"},
		{"skerry.v2.desired.shop-1.apps", false, "another major version is another language"},
		{ReportSubject("shop-1", "m"), false, "another class is not read"},
		{"", false, "nothing is no subject"},
	}
	for _, tt := range tests {
		site, section, err := ParseDesired(tt.subject)
		if (err == nil) != tt.ok {
			t.Errorf("ParseDesired(%q) = %q, %q, %v: %s", tt.subject, site, section, err, tt.reason)
		}
		if err != nil && (!errors.Is(err, ErrMessage) || site != "" || section != "") {
			t.Errorf("ParseDesired(%q) = %q, %q, %v: want empty values and ErrMessage", tt.subject, site, section, err)
		}
	}
	for name, parse := range map[string]func(string) (fleet.SiteName, fleet.MemberID, error){ReportSubject("a", "m-1"): ParseReport, AliveSubject("a", "m-1"): ParseAlive} {
		site, member, err := parse(name)
		if diff := cmp.Diff([]string{"a", "m-1"}, []string{string(site), string(member)}); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
		for _, bad := range []string{name + ".x", strings.TrimSuffix(name, ".m-1"), strings.ToUpper(name), strings.Replace(name, "m-1", "M", 1)} {
			if _, _, err := parse(bad); !errors.Is(err, ErrMessage) {
				t.Errorf("%s was answered with %v", bad, err)
			}
		}
	}
	if got := CallMethod(CallSubject("a", "m", "app-logs")); got != "app-logs" {
		t.Errorf("CallMethod = %q", got)
	}
	if got := CallMethod("no-dots"); got != "no-dots" {
		t.Errorf("CallMethod of one token = %q", got)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	seed(f, "manifest.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeManifest(data)
		fuzzed(t, err, m, DecodeManifest)
		if err == nil {
			for name := range m.Sections {
				site, section, err := ParseDesired(DesiredSubject("a", name))
				if err != nil || site != "a" || section != name {
					t.Errorf("section %q is no subject: %q, %q, %v", name, site, section, err)
				}
			}
		}
	})
}

func FuzzDecodeReport(f *testing.F) {
	seed(f, "report.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeReport(data)
		fuzzed(t, err, r, DecodeReport)
	})
}

func FuzzDecodeCall(f *testing.F) {
	seed(f, "call.json", "ack.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCall(data)
		fuzzed(t, err, c, DecodeCall)
		if a, err := DecodeAck(data); err == nil && a.Stream == "" {
			t.Error("an acknowledgement of no stream was accepted")
		}
	})
}

func FuzzDecodeEventBatch(f *testing.F) {
	seed(f, "events.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeEventBatch(data)
		fuzzed(t, err, b, DecodeEventBatch)
		if err == nil && b.Last() == 0 {
			t.Error("a batch that ends with number 0 was accepted")
		}
	})
}

func TestEventBatchRefused(t *testing.T) {
	good := func() EventBatch {
		return EventBatch{Protocol: 1, Site: "a", Member: "m", Epoch: "E", Records: []EventRecord{{Sequence: 1}, {Sequence: 3}}}
	}
	for _, row := range []struct {
		reason string
		change func(*EventBatch)
	}{
		{"a batch without records says nothing and would hide the mark", func(b *EventBatch) { b.Records = nil }},
		{"numbers begin at 1", func(b *EventBatch) { b.Records[0].Sequence = 0 }},
		{"numbers grow", func(b *EventBatch) { b.Records[1].Sequence = 1 }},
		{"numbers mean nothing without an epoch", func(b *EventBatch) { b.Epoch = "" }},
		{"a name that is no site's", func(b *EventBatch) { b.Site = "A B" }},
		{"a name that is no member's", func(b *EventBatch) { b.Member = "" }},
		{"more records than a batch holds", func(b *EventBatch) { b.Records = make([]EventRecord, MaxEventRecords+1) }},
		{"a message beyond its bound", func(b *EventBatch) { b.Records[0].Message = strings.Repeat("x", fleet.MaxEventMessage+1) }},
	} {
		b := good()
		row.change(&b)
		data, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeEventBatch(data); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: got %v", row.reason, err)
		}
	}
	data, err := good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := DecodeEventBatch(data); err != nil || b.Last() != 3 {
		t.Errorf("a good one: last is %d, %v", b.Last(), err)
	}
	newer := good()
	newer.Records[0].Class = "of a later version"
	if data, err = newer.Encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeEventBatch(data); err != nil {
		t.Errorf("a class of a later version: %v", err)
	}
}

func FuzzParseSubject(f *testing.F) {
	for _, s := range []string{DesiredSubject("a", "apps"), ReportSubject("a", "m"), AliveSubject("a", "m"), HubEpochSubject, AllReports, "..", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		if site, section, err := ParseDesired(subject); err == nil && DesiredSubject(site, section) != subject {
			t.Errorf("ParseDesired(%q) = %q, %q", subject, site, section)
		}
		if site, member, err := ParseReport(subject); err == nil && (ReportSubject(site, member) != subject || site.Validate() != nil || member.Validate() != nil) {
			t.Errorf("ParseReport(%q) = %q, %q", subject, site, member)
		}
		if site, member, err := ParseAlive(subject); err == nil && (AliveSubject(site, member) != subject || !Matches(AllAlive, subject)) {
			t.Errorf("ParseAlive(%q) = %q, %q", subject, site, member)
		}
		if site, member, err := ParseEvents(subject); err == nil && (EventsSubject(site, member) != subject || !Matches(EventsPattern(site), subject)) {
			t.Errorf("ParseEvents(%q) = %q, %q", subject, site, member)
		}
		_ = CallMethod(subject)
		if stream, ok := StreamOf(subject); ok && !strings.HasPrefix(subject, strings.TrimSuffix(Stored()[stream], ">")) {
			t.Errorf("StreamOf(%q) = %q", subject, stream)
		}
	})
}

func seed(f *testing.F, files ...string) {
	for file, message := range frozen() {
		for _, want := range files {
			if file == want {
				data, err := json.Marshal(message)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(data)
			}
		}
	}
	f.Add([]byte(`{"protocol":1}`))
	f.Add([]byte(`null`))
}

// fuzzed holds what was decoded to be encoded and decoded to the same again.
func fuzzed[T interface{ Encode() ([]byte, error) }](t *testing.T, err error, v T, decode func([]byte) (T, error)) {
	t.Helper()
	if err != nil {
		if !errors.Is(err, ErrMessage) {
			t.Errorf("error does not wrap ErrMessage: %v", err)
		}
		return
	}
	data, err := v.Encode()
	if errors.Is(err, ErrTooLarge) {
		return // JSON may be written longer than it was read
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := decode(data)
	if err != nil {
		t.Fatalf("what was encoded cannot be decoded: %v\n%s", err, data)
	}
	twice, err := again.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, twice) {
		t.Errorf("encoding is not stable:\n%s\n%s", data, twice)
	}
}
