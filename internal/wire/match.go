package wire

import "strings"

// Matches reports whether subject is one of those that pattern names: "*" stands for one token, a last
// ">" for one or more.
func Matches(pattern, subject string) bool {
	for {
		want, restWant, moreWant := strings.Cut(pattern, ".")
		got, restGot, moreGot := strings.Cut(subject, ".")
		switch {
		case want == ">" && !moreWant:
			return got != ""
		case want != "*" && want != got, got == "":
			return false
		case !moreWant || !moreGot:
			return moreWant == moreGot
		}
		pattern, subject = restWant, restGot
	}
}

// StreamOf returns the name of the stream that stores subject, which may be a pattern; false when the
// subject is not of a stored kind.
func StreamOf(subject string) (string, bool) {
	for stream, pattern := range Stored() {
		if strings.HasPrefix(subject, strings.TrimSuffix(pattern, ">")) && Matches(pattern, subject) {
			return stream, true
		}
	}
	return "", false
}
