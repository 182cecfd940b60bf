package apitest

import (
	"fmt"
	"strings"
)

// refusal is a wrong object, and what the answer must say: the field, the value, and what is allowed.
type refusal struct {
	reason, object string
	says           []string
}

// refs is an App with these references to Secrets.
func refs(lines string) string { return app("a", "  secretRefs: ["+lines+"]") }

// many joins n lines that fn makes.
func many(n int, fn func(int) string) string {
	var lines []string
	for i := range n {
		lines = append(lines, fn(i))
	}
	return strings.Join(lines, ", ")
}

// refusedSecrets are references that must not be taken. A name is one in the app's own namespace: nothing in
// it may lead elsewhere.
func refusedSecrets() []refusal {
	at := "spec.secretRefs[0]"
	out := []refusal{
		{"no name", refs("{optional: true}"), []string{at + ".name", "Required value"}},
		{"an endless name", refs("{name: " + strings.Repeat("a", 254) + "}"), []string{at + ".name", "253"}},
		{"a Secret twice", refs("{name: db}, {name: db}"), []string{"spec.secretRefs[1]", "Duplicate", `"db"`}},
		{"too many Secrets", refs(many(17, func(i int) string { return fmt.Sprintf("{name: s%d}", i) })), []string{"spec.secretRefs", "16"}},
		{"a variable of the agent", refs("{name: db, env: [{name: SKERRY_SITE, key: k}]}"), []string{at + ".env[0].name", "SKERRY_SITE", "PORT and SKERRY_* are set by the agent"}},
		{"its port", refs("{name: db, env: [{name: PORT, key: k}]}"), []string{at + ".env[0].name", "PORT and SKERRY_* are set by the agent"}},
		{"a variable with a dash", refs("{name: db, env: [{name: A-B, key: k}]}"), []string{at + ".env[0].name", `"A-B"`, "should match"}},
		{"a variable twice in one", refs("{name: db, env: [{name: A, key: k}, {name: A, key: l}]}"), []string{at + ".env[1]", "Duplicate", `"A"`}},
		{"a variable that env sets too", app("a", "  env: {A: x}\n  secretRefs: [{name: db, env: [{name: A, key: k}]}]"),
			[]string{"spec.secretRefs", "a variable is in spec.env and in env of a secret: name it once"}},
		{"a variable without a key", refs("{name: db, env: [{name: A}]}"), []string{at + ".env[0].key", "Required value"}},
		{"no variables", refs("{name: db, env: []}"), []string{at + ".env", "at least 1"}},
		{"too many variables", refs("{name: db, env: [" + many(33, func(i int) string { return fmt.Sprintf("{name: A%d, key: k}", i) }) + "]}"), []string{at + ".env", "32"}},
		{"no files", refs("{name: db, files: []}"), []string{at + ".files", "at least 1"}},
		{"a key with a slash", refs("{name: db, files: [{path: a, key: ../k}]}"), []string{at + ".files[0].key", `"../k"`, "should match"}},
		{"a file twice", refs("{name: db, files: [{path: a, key: k}, {path: a, key: l}]}"), []string{at + ".files[1]", "Duplicate", `"a"`}},
		{"a change that nobody knows", refs("{name: db, onChange: Reload}"), []string{at + ".onChange", `"Reload"`, `"Restart"`, `"Signal"`, `"None"`}},
		{"a signal that ends programs", refs("{name: db, onChange: Signal, signal: SIGKILL}"), []string{at + ".signal", `"SIGKILL"`, `"SIGHUP"`, `"SIGUSR1"`}},
		{"a signal without its change", refs("{name: db, signal: SIGHUP}"), []string{at + ".signal", "a signal needs onChange Signal"}},
		{"a signal for the environment", refs("{name: db, onChange: Signal, env: [{name: A, key: k}]}"), []string{at + ".onChange", "the environment of a program that runs cannot change"}},
	}
	for _, name := range []string{"../x/y", "other/db", "/db", "..", "db/..", "db%2F..", "Db", "db ", "", ".db", "db.", "a..b", "db\\n", "db?x=y", "${NAME}"} {
		out = append(out, refusal{fmt.Sprintf("the forged name %q", name), refs(fmt.Sprintf("{name: %q}", name)), []string{at + ".name", "should match"}})
	}
	for _, path := range []string{"../a", "a/../b", "/etc/passwd", "a//b", "a/", "..data", "a/..b", ".", "./a", "a b", "a\\b"} {
		out = append(out, refusal{fmt.Sprintf("the path %q", path), refs(fmt.Sprintf("{name: db, files: [{path: %q, key: k}]}", path)), []string{at + ".files[0].path"}})
	}
	return out
}

// acceptedSecrets lie just inside the bounds.
func acceptedSecrets() map[string]string {
	return map[string]string{
		"a whole Secret":      refs("{name: db}"),
		"a name with dots":    refs("{name: a.b-c.d}"),
		"a hidden file":       refs("{name: db, files: [{path: .pgpass, key: .pgpass}]}"),
		"files and variables": refs("{name: db, optional: true, env: [{name: A, key: k}], files: [{path: a/b.c/d, key: k}]}"),
		"a signal":            refs("{name: db, onChange: Signal, signal: SIGUSR1, files: [{path: a, key: k}]}"),
		"variables that stay": refs("{name: db, onChange: None, env: [{name: A, key: k}]}"),
		"as many as can be": refs(many(16, func(i int) string {
			return fmt.Sprintf("{name: s%d, env: [%s]}", i, many(32, func(j int) string { return fmt.Sprintf("{name: A_%d_%d, key: k}", i, j) }))
		})),
		"env beside a Secret's": app("b", "  env: {B: x}\n  secretRefs: [{name: db, env: [{name: A, key: k}]}]"),
	}
}
