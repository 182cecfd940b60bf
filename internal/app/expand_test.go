package app_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func scope(t *testing.T) app.Scope {
	t.Helper()
	return app.Scope{
		Values: object(t, `{"port":8080,"rate":1.5,"big":1e21,"on":true,"name":"till","empty":"","no":false,"html":"<a&b>",
			"tls":{"port":443,"b":2},"lanes":[{"n":1},"two",[3]],"a.b":{"c/d":"dots"},"dash-ed":"-","nil":[null]}`),
		Site: fleet.Facts{Name: "shop-1", Zone: "", Labels: map[string]string{"kind": "shop", "example.com/tier": "small", "none": ""}},
	}
}

func TestExpand(t *testing.T) {
	tests := []struct{ in, want, reason string }{
		{"", "", "nothing"},
		{"plain $HOME $(x) $1 {} $", "plain $HOME $(x) $1 {} $", "only ${ is ours"},
		{"${values.name}", "till", "a string is as it is"},
		{"a${values.name}b${values.port}c", "atillb8080c", "text around is kept"},
		{"${values.name}${values.port}", "till8080", "two in a row"},
		{"${values.port} ${values.rate} ${values.on} ${values.no}", "8080 1.5 true false", "numbers and booleans as JSON"},
		{"${values.tls}", `{"b":2,"port":443}`, "a map as JSON, its keys in order"},
		{"${values.lanes}", `[{"n":1},"two",[3]]`, "a list as JSON"},
		{"${values.html}", "<a&b>", "text is not escaped"},
		{"${values.nil[0]}", "null", "null inside a list is all that is left of null"},
		{"${values.tls.port}", "443", "a path into maps"},
		{"${values.lanes[0].n}${values.lanes[1]}${values.lanes[2][0]}", "1two3", "a path into lists"},
		{"${values['a.b']['c/d']}", "dots", "names with other characters"},
		{"${values['tls'].port}", "443", "both ways of writing a name"},
		{"${values.dash-ed}", "-", "a dash is of a name"},
		{"${site.name} ${site.labels.kind} ${site.labels['example.com/tier']}", "shop-1 shop small", "facts of the site"},
		{"[${site.zone}][${site.labels.none}][${values.empty}]", "[][][]", "what is there and empty"},
		{"${site.zone:-unknown} ${site.labels.none:-x} ${values.empty:-y}", "unknown x y", "a default stands for empty, as in a shell"},
		{"${values.nobody:-x} ${site.labels.nobody:-y} ${values.lanes[9]:-z} ${values.name.deep:-d}", "x y z d", "and for what is not there"},
		{"${values.name:-x}${values.no:-x}${values.tls.port:-1}", "tillfalse443", "not for what is there"},
		{"${values.nobody:-}", "", "an empty default"},
		{"${values.nobody:-a:-${b $}", "a:-${b $", "a default is literal up to the first brace"},
		{"$${values.name}", "${values.name}", "an escape"},
		{"$$${values.name}", "$${values.name}", "an escape after a dollar"},
		{"$${", "${", "an escape of nothing"},
		{"a$$b $$", "a$$b $$", "dollars alone are no escape"},
		{"$${a}${values.name}$${b}", "${a}till${b}", "escapes around a reference"},
	}
	for _, tt := range tests {
		got, err := app.Expand(tt.in, scope(t), 1000)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %s: %v (-want +got):\n%s", tt.in, tt.reason, err, diff)
		}
		if err := app.CheckReferences(tt.in); err != nil {
			t.Errorf("%s: CheckReferences: %v", tt.in, err)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	tests := []struct {
		in, says, reason string
		malformed        bool
	}{
		{"${values.nobody}", "${values.nobody}: there is no values.nobody", "the path is named", false},
		{"${values.tls.nobody.x}", "there is no values.tls.nobody", "up to where it ends", false},
		{"${values.name.x}", "there is no values.name.x", "a string has no parts", false},
		{"${values.lanes[3]}", "there is no values.lanes[3]", "a list ends", false},
		{"${values.lanes.n}", "there is no values.lanes.n", "a list has no names", false},
		{"${values.tls[0]}", "there is no values.tls[0]", "a map has no numbers", false},
		{"${values['x y']}", "there is no values['x y']", "a name with other characters is written so", false},
		{"${site.labels.nobody}", `site shop-1 has no label "nobody"`, "the site is named", false},
		{"${HOME}", "${HOME}: want values.PATH, site.name, site.zone or site.labels.KEY; $${ stands for ${", "variables of a shell are not ours", true},
		{"${values}", "want values.PATH", "all values are in values.json", true},
		{"${site}", "want values.PATH", "a root alone", true},
		{"${site.labels}", "want values.PATH", "not all labels", true},
		{"${site.colour}", "want values.PATH", "a fact that there is not", true},
		{"${site.labels[0]}", "want values.PATH", "labels have no numbers", true},
		{"${site.labels.example.com/tier}", "want '.', '[', ':-' or '}'", "a label with a slash needs brackets", true},
		{"${secrets.x}", "want values.PATH", "nothing else is there", true},
		{"${}", "want values or site", "nothing", true},
		{"${ values.name }", "want values or site", "no blanks", true},
		{"${values.}", "want a name after '.'", "a path that ends early", true},
		{"${values.a", "want '.', '[', ':-' or '}'", "no end", true},
		{"${values.a:-b", "want }", "no end of the default", true},
		{"${values.a:b}", "want '.', '[', ':-' or '}'", "half a default", true},
		{"${values['a}", "want a name and ']", "no end of the name", true},
		{"${values[a]}", "want a number", "a name without quotes", true},
		{"${values.lanes[-1]}", "want a number", "from the end", true},
		{"${values.lanes[99999999999999999999]}", "want a number", "a number that is too large", true},
		{"${values.a|upper}", "want '.', '[', ':-' or '}'", "no functions", true},
		{"${values.ä}", "want a name after '.'", "letters are ASCII", true},
		{"ok ${values.name} then ${x", "${x:", "the second of two", true},
	}
	for _, tt := range tests {
		_, err := app.Expand(tt.in, scope(t), 1000)
		if !errors.Is(err, app.ErrReference) || !errors.Is(err, app.ErrConfig) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %s: want an error that says %q, got %v", tt.in, tt.reason, tt.says, err)
		}
		if err := app.CheckReferences(tt.in); (err != nil) != tt.malformed {
			t.Errorf("%s: %s: CheckReferences: %v", tt.in, tt.reason, err)
		}
	}
}

func TestExpandBound(t *testing.T) {
	s := scope(t)
	s.Values["block"] = strings.Repeat("x", 600)
	for _, tt := range []struct {
		in   string
		fits bool
	}{
		{strings.Repeat("x", 1000), true}, {strings.Repeat("x", 1001), false},
		{"${values.block}" + strings.Repeat("x", 400), true}, {"${values.block}${values.block}", false},
		{strings.Repeat("${values.block}", 100_000), false}, {strings.Repeat("x", 999) + "$${", false},
	} {
		got, err := app.Expand(tt.in, s, 1000)
		if (err == nil) != tt.fits || !tt.fits && !errors.Is(err, app.ErrConfigTooLarge) {
			t.Errorf("%.40s…: %d bytes, error %v", tt.in, len(got), err)
		}
	}
}

// FuzzExpand wants every text to be answered without a panic, within the bound, and what is escaped to come
// out as it was.
func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"${values.a[0]['b']:-c}", "$$${", "${site.labels.x", "${values.a:-}", "$${}$"} {
		f.Add(seed, "b")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		s := app.Scope{Values: map[string]any{"a": []any{map[string]any{"b": value}}, "x": value}, Site: fleet.Facts{Labels: map[string]string{"x": value}}}
		got, err := app.Expand(text, s, 200)
		switch {
		case err != nil && !errors.Is(err, app.ErrConfig):
			t.Errorf("error is no app.ErrConfig: %v", err)
		case err == nil && len(got) > 200:
			t.Errorf("%d bytes", len(got))
		case err == nil && app.CheckReferences(text) != nil:
			t.Errorf("CheckReferences refuses what expands to %q", got)
		case err == nil && !app.HasReference(text) && got != text:
			t.Errorf("text without a reference became %q", got)
		}
		escaped := strings.ReplaceAll(text, "${", "$${")
		if got, err := app.Expand(escaped, s, len(escaped)); err != nil || got != text {
			t.Errorf("%q escaped came out as %q, %v", text, got, err)
		}
	})
}

func TestCheckConfigPaths(t *testing.T) {
	tests := []struct {
		paths  []string
		says   string
		reason string
	}{
		{nil, "", "none"},
		{[]string{"app.conf", "conf.d/a", "conf.d/b", "conf", ".hidden", "a b/ü.conf"}, "", "files and directories"},
		{[]string{""}, `""`, "a path is not empty"},
		{[]string{"/etc/passwd"}, "/etc/passwd", "an absolute one"},
		{[]string{"../x"}, "../x", "one that leaves the directory"},
		{[]string{"a/../../x"}, "a/../../x", "one that leaves it later"},
		{[]string{"a/"}, "a/", "a directory is no file"},
		{[]string{"a\\b"}, "clean path", "a backslash"},
		{[]string{"a\nb"}, "printable", "a line break"},
		{[]string{"a\x00b"}, "clean path", "a zero byte"},
		{[]string{"values.json"}, "which the agent writes", "the agent's own"},
		{[]string{"values.json/x"}, "which the agent writes", "the agent's own as a directory"},
		{[]string{"a", "a"}, "twice", "one path twice"},
		{[]string{"a/b/c", "a"}, `"a" is a file too`, "a file that would have to be a directory"},
		{[]string{strings.Repeat("x", app.MaxConfigPath+1)}, "255", "a long one"},
		{make([]string, app.MaxConfigFiles+1), "at most 64", "many"},
	}
	for _, tt := range tests {
		err := app.CheckConfigPaths(tt.paths)
		if (err == nil) != (tt.says == "") || err != nil && (!strings.Contains(err.Error(), tt.says) || !errors.Is(err, app.ErrConfig)) {
			t.Errorf("%.60q: want an error that says %q, got %v: %s", tt.paths, tt.says, err, tt.reason)
		}
	}
}
