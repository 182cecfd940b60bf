package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Subjects start with the protocol's major version, then a class, then the site they belong to, so that
// the rights of a site are a handful of prefixes:
//
//	skerry.v1.desired.<site>.<section>           stored; the hub writes, the site gets
//	skerry.v1.hint.<site>                        the hub says "look at your manifest"
//	skerry.v1.alive.<site>.<member>              the member says that it is there, on a timer
//	skerry.v1.report.<site>.<member>             stored; the member writes its state document
//	skerry.v1.events.<site>.<member>             stored, the last few; the member writes what happened
//	skerry.v1.call.<site>.<member>.<method>      the hub asks a member
//	skerry.v1.stream.<site>.<member>.<id>        a member answers a call with more than one message
const prefix = "skerry.v1."

// Classes of subjects.
const (
	classDesired = prefix + "desired."
	classHint    = prefix + "hint."
	classAlive   = prefix + "alive."
	classReport  = prefix + "report."
	classEvents  = prefix + "events."
	classCall    = prefix + "call."
	classStream  = prefix + "stream."
)

// ManifestSection is the section under which a site's manifest itself is stored.
const ManifestSection = "manifest"

// Patterns of all subjects of a class, for the hub.
const (
	AllDesired = classDesired + ">"
	AllReports = classReport + ">"
	AllAlive   = classAlive + ">"
	AllEvents  = classEvents + ">"
)

// Stored returns the patterns of the subjects that keep their newest values, by the name of the stream
// that holds them. Everything else is delivered to whoever listens and forgotten.
func Stored() map[string]string {
	return map[string]string{StreamDesired: AllDesired, StreamReports: AllReports, StreamEvents: AllEvents}
}

// Kept is how many values of each subject a stream of Stored keeps. Older ones go when a newer comes.
func Kept(stream string) int {
	if stream == StreamEvents {
		return 256
	}
	return 1
}

// Names of the streams that hold stored subjects.
const (
	StreamDesired = "SKERRY_DESIRED"
	StreamReports = "SKERRY_REPORTS"
	StreamEvents  = "SKERRY_EVENTS"
)

// DesiredSubject is where the hub stores a section of a site; ManifestSection for the manifest.
func DesiredSubject(site fleet.SiteName, section string) string {
	return classDesired + string(site) + "." + section
}

// DesiredPattern matches everything the hub stores for a site.
func DesiredPattern(site fleet.SiteName) string { return classDesired + string(site) + ".>" }

// HubEpochSubject is where the hub keeps the name of its own memory's life. Its site part is no valid
// SiteName, so that no site has a right to it.
const HubEpochSubject = classDesired + "_hub.epoch"

// HintSubject is where the hub tells a site that its manifest changed.
func HintSubject(site fleet.SiteName) string { return classHint + string(site) }

// AliveSubject is where a member says that it is there.
func AliveSubject(site fleet.SiteName, member fleet.MemberID) string {
	return classAlive + string(site) + "." + string(member)
}

// ReportSubject is where a member stores its state document.
func ReportSubject(site fleet.SiteName, member fleet.MemberID) string {
	return classReport + string(site) + "." + string(member)
}

// ReportPattern matches the reports of all members of a site.
func ReportPattern(site fleet.SiteName) string { return classReport + string(site) + ".*" }

// EventsSubject is where a member stores batches of what happened.
func EventsSubject(site fleet.SiteName, member fleet.MemberID) string {
	return classEvents + string(site) + "." + string(member)
}

// EventsPattern matches the events of all members of a site.
func EventsPattern(site fleet.SiteName) string { return classEvents + string(site) + ".*" }

// ParseEvents is the inverse of EventsSubject.
func ParseEvents(subject string) (fleet.SiteName, fleet.MemberID, error) {
	return parseMember(classEvents, subject)
}

// CallSubject is where a member answers calls of a method.
func CallSubject(site fleet.SiteName, member fleet.MemberID, method string) string {
	return classCall + string(site) + "." + string(member) + "." + method
}

// CallPattern matches all calls to a member.
func CallPattern(site fleet.SiteName, member fleet.MemberID) string {
	return classCall + string(site) + "." + string(member) + ".>"
}

// StreamSubject is where a member sends the parts of a long answer.
func StreamSubject(site fleet.SiteName, member fleet.MemberID, id string) string {
	return classStream + string(site) + "." + string(member) + "." + id
}

// StreamPattern matches all long answers of a member.
func StreamPattern(site fleet.SiteName, member fleet.MemberID) string {
	return classStream + string(site) + "." + string(member) + ".>"
}

// InboxPrefix is the prefix under which a member receives answers to its own requests. Nobody else may
// listen below it.
func InboxPrefix(site fleet.SiteName, member fleet.MemberID) string {
	return "_INBOX." + string(site) + "." + string(member)
}

// ParseDesired is the inverse of DesiredSubject. It refuses HubEpochSubject, which belongs to no site.
func ParseDesired(subject string) (site fleet.SiteName, section string, err error) {
	name, section, err := cutSubject(classDesired, subject)
	if err == nil {
		site = fleet.SiteName(name)
		err = checkNames(subject, site.Validate(), checkToken("section", section))
	}
	if err != nil {
		return "", "", err
	}
	return site, section, nil
}

// ParseReport is the inverse of ReportSubject.
func ParseReport(subject string) (fleet.SiteName, fleet.MemberID, error) {
	return parseMember(classReport, subject)
}

// ParseAlive is the inverse of AliveSubject.
func ParseAlive(subject string) (fleet.SiteName, fleet.MemberID, error) {
	return parseMember(classAlive, subject)
}

func parseMember(class, subject string) (fleet.SiteName, fleet.MemberID, error) {
	first, second, err := cutSubject(class, subject)
	if err != nil {
		return "", "", err
	}
	site, member := fleet.SiteName(first), fleet.MemberID(second)
	if err := checkNames(subject, site.Validate(), member.Validate()); err != nil {
		return "", "", err
	}
	return site, member, nil
}

// CallMethod returns the last token of a call's subject.
func CallMethod(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

func cutSubject(class, subject string) (first, second string, err error) {
	rest, ok := strings.CutPrefix(subject, class)
	first, second, both := strings.Cut(rest, ".")
	if !ok || !both {
		return "", "", fmt.Errorf("subject %q: want %s<site>.<name>: %w", subject, class, ErrMessage)
	}
	return first, second, nil
}

func checkNames(subject string, errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("subject %q: %w: %w", subject, err, ErrMessage)
	}
	return nil
}

// maxToken bounds one token of a subject that is no name of package fleet.
const maxToken = 63

// checkToken makes sure that s stands for itself as one token of a subject: no wildcard, no separator.
func checkToken(what, s string) error {
	if s == "" || len(s) > maxToken {
		return fmt.Errorf("%s %q: want 1 to %d characters: %w", what, s, maxToken, ErrMessage)
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("%s %q: want letters, digits, '-' and '_': %w", what, s, ErrMessage)
		}
	}
	return nil
}
