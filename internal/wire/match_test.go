package wire

import "testing"

func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, subject string
		want             bool
		reason           string
	}{
		{"a.b", "a.b", true, "a literal matches itself"},
		{"a.b", "a.b.c", false, "a literal does not match what is longer"},
		{"a.b.c", "a.b", false, "a literal does not match what is shorter"},
		{"a.*", "a.b", true, "a star stands for one token"},
		{"a.*", "a.b.c", false, "a star stands for no more than one token"},
		{"a.*", "a", false, "a star stands for no less than one token"},
		{"*.b", "a.b", true, "a star may stand first"},
		{"a.>", "a.b.c", true, "the rest may be many tokens"},
		{"a.>", "a", false, "the rest is at least one token"},
		{">", "a", true, "everything matches"},
		{"a.>", "ab.c", false, "a token is compared as a whole"},
		{"a.*.c", "a..c", false, "a token is never empty"},
	}
	for _, tt := range tests {
		if got := Matches(tt.pattern, tt.subject); got != tt.want {
			t.Errorf("Matches(%q, %q) = %v: %s", tt.pattern, tt.subject, got, tt.reason)
		}
	}
}

func TestStreamOf(t *testing.T) {
	tests := []struct{ subject, want, reason string }{
		{DesiredSubject("shop-1", ManifestSection), StreamDesired, "what the hub wants is stored"},
		{DesiredPattern("shop-1"), StreamDesired, "a pattern of one stream names that stream"},
		{ReportSubject("shop-1", "m"), StreamReports, "reports are stored"},
		{HintSubject("shop-1"), "", "a hint is forgotten"},
		{">", "", "a pattern of more than one stream names none"},
	}
	for _, tt := range tests {
		if got, _ := StreamOf(tt.subject); got != tt.want {
			t.Errorf("StreamOf(%q) = %q, want %q: %s", tt.subject, got, tt.want, tt.reason)
		}
	}
}
