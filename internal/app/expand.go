package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Errors of references, beside ErrConfig, which they come with.
var (
	// ErrReference means that a reference is malformed or leads nowhere.
	ErrReference = errors.New("unknown reference")
	// ErrConfigTooLarge means that what references stand for is larger than the bound.
	ErrConfigTooLarge = errors.New("configuration too large")
)

// Scope is what references may lead to.
type Scope struct {
	// Values are the final ones of a site.
	Values map[string]any
	// Site are the facts of the site.
	Site fleet.Facts
}

// HasReference reports whether Expand would change text.
func HasReference(text string) bool { return strings.Contains(text, "${") }

// Expand fills in the references of text:
//
//	${values.PATH}      a value; numbers, booleans, maps and lists as JSON
//	${site.name}        ${site.zone}, ${site.labels.KEY}
//	${PATH:-default}    default, taken literally, where there is no such value or it is the empty string
//	$${                 ${ itself
//
// A PATH is names with dots between them; what is not made of letters, digits, '_' and '-' is written
// ['like/this'], an item of a list [0]. Everything else is left as it is. The result has at most limit
// bytes.
func Expand(text string, scope Scope, limit int) (string, error) {
	var out strings.Builder
	grow := func(s string) error {
		if out.Len()+len(s) > limit {
			return configError(fmt.Errorf("more than %d bytes with its references filled in", limit), ErrConfigTooLarge)
		}
		out.WriteString(s)
		return nil
	}
	for text != "" {
		at := strings.Index(text, "${")
		if at < 0 {
			break
		}
		if at > 0 && text[at-1] == '$' { // $${
			if err := grow(text[:at-1] + "${"); err != nil {
				return "", err
			}
			text = text[at+2:]
			continue
		}
		if err := grow(text[:at]); err != nil {
			return "", err
		}
		ref, rest, err := parseReference(text[at+2:])
		if err != nil {
			return "", configError(fmt.Errorf("${%s: %w", cut(text[at+2:]), err), ErrReference)
		}
		value, err := ref.resolve(scope)
		if err != nil {
			return "", configError(fmt.Errorf("${%s}: %w", ref.text, err), ErrReference)
		}
		if err := grow(value); err != nil {
			return "", fmt.Errorf("${%s}: %w", ref.text, err)
		}
		text = rest
	}
	return out.String() + text, grow(text)
}

// cut shortens what an error quotes to one short line.
func cut(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 40 {
		return string(runes[:40]) + "…"
	}
	return line
}

// reference is what stands between "${" and "}".
type reference struct {
	text string
	// path has a string for each name and an int for each item of a list.
	path       []any
	fallback   string
	hasDefault bool
}

// CheckReferences reports the first reference of text that no values and no site could satisfy, because it
// is malformed.
func CheckReferences(text string) error {
	for {
		at := strings.Index(text, "${")
		if at < 0 {
			return nil
		}
		escaped := at > 0 && text[at-1] == '$'
		text = text[at+2:]
		if escaped {
			continue
		}
		_, rest, err := parseReference(text)
		if err != nil {
			return configError(fmt.Errorf("${%s: %w", cut(text), err), ErrReference)
		}
		text = rest
	}
}

// parseReference reads a reference after its "${" and returns what follows its "}".
func parseReference(text string) (ref reference, rest string, err error) {
	at := text
	name, at := takeName(at)
	if name == "" {
		return ref, "", errors.New("want values or site; $${ stands for ${ itself")
	}
	ref.path = append(ref.path, name)
	for {
		switch {
		case strings.HasPrefix(at, "."):
			if name, at = takeName(at[1:]); name == "" {
				return ref, "", errors.New("want a name after '.', of letters, digits, '_' and '-'; others are written ['like/this']")
			}
			ref.path = append(ref.path, name)
		case strings.HasPrefix(at, "['"):
			key, after, ok := strings.Cut(at[2:], "']")
			if !ok || strings.ContainsAny(key, "'\n") {
				return ref, "", errors.New("want a name and '] after ['")
			}
			ref.path, at = append(ref.path, key), after
		case strings.HasPrefix(at, "["):
			number, after, ok := strings.Cut(at[1:], "]")
			n, err := strconv.ParseUint(number, 10, 16)
			if !ok || err != nil {
				return ref, "", errors.New("want a number and ] after [, or ['name']")
			}
			ref.path, at = append(ref.path, int(n)), after
		case strings.HasPrefix(at, ":-"):
			fallback, after, ok := strings.Cut(at[2:], "}")
			if !ok {
				return ref, "", errors.New("it has no end: want }")
			}
			ref.fallback, ref.hasDefault = fallback, true
			ref.text = text[:len(text)-len(after)-1]
			return ref, after, ref.checkRoot()
		case strings.HasPrefix(at, "}"):
			ref.text = text[:len(text)-len(at)]
			return ref, at[1:], ref.checkRoot()
		default:
			return ref, "", errors.New("want '.', '[', ':-' or '}' after a name")
		}
	}
}

func takeName(text string) (name, rest string) {
	end := strings.IndexFunc(text, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-'
	})
	if end < 0 {
		end = len(text)
	}
	return text[:end], text[end:]
}

// checkRoot reports whether the reference begins at something that there is.
func (r reference) checkRoot() error {
	switch {
	case r.path[0] == "values" && len(r.path) > 1:
		return nil
	case r.path[0] == "site" && len(r.path) == 2 && (r.path[1] == "name" || r.path[1] == "zone"):
		return nil
	case r.path[0] == "site" && len(r.path) == 3 && r.path[1] == "labels":
		if _, ok := r.path[2].(string); ok {
			return nil
		}
	}
	return errors.New("want values.PATH, site.name, site.zone or site.labels.KEY; $${ stands for ${ itself")
}

// resolve returns the text that the reference stands for.
func (r reference) resolve(scope Scope) (string, error) {
	value, err := r.find(scope)
	if err == nil && value != "" {
		return text(value)
	}
	if r.hasDefault {
		return r.fallback, nil
	}
	return "", err
}

func (r reference) find(scope Scope) (any, error) {
	if r.path[0] == "values" {
		return lookUp(scope.Values, r.path[1:])
	}
	switch r.path[1] {
	case "name":
		return string(scope.Site.Name), nil
	case "zone":
		return scope.Site.Zone, nil
	}
	value, ok := scope.Site.Labels[r.path[2].(string)]
	if !ok {
		return nil, fmt.Errorf("site %s has no label %q", scope.Site.Name, r.path[2])
	}
	return value, nil
}

// lookUp follows a path into values and says where it ends when it does.
func lookUp(values any, path []any) (any, error) {
	for i, step := range path {
		var next any
		found := false
		switch at := values.(type) {
		case map[string]any:
			if name, ok := step.(string); ok {
				next, found = at[name]
			}
		case []any:
			if n, ok := step.(int); ok && n < len(at) {
				next, found = at[n], true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no %s", PathString(slices.Concat([]any{"values"}, path[:i+1])))
		}
		values = next
	}
	return values, nil
}

// PathString writes a path of names and indices as references write it.
func PathString(path []any) string {
	var out strings.Builder
	for i, step := range path {
		name, ok := step.(string)
		if _, rest := takeName(name); ok && name != "" && rest == "" {
			if i > 0 {
				out.WriteByte('.')
			}
			out.WriteString(name)
		} else if ok {
			out.WriteString("['" + name + "']")
		} else {
			fmt.Fprintf(&out, "[%v]", step)
		}
	}
	return out.String()
}

// text is a string as it is, and everything else as JSON.
func text(value any) (string, error) {
	if s, ok := value.(string); ok {
		return s, nil
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "", fmt.Errorf("cannot be written as JSON: %w", err)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
