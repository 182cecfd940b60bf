package appsite

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// EnvTimeZone is the variable with the site's time zone, by its name in the IANA database; not set for UTC.
const EnvTimeZone = "SKERRY_TIME_ZONE"

// environ is the declared environment of a release, the placement's over the bundle's, with the facts of
// the site. Facts are those of the time of the start: a changed label does not restart an app.
func (r release) environ(facts fleet.Facts, hubFile string) map[string]string {
	env := map[string]string{}
	maps.Copy(env, r.Config.Environment())
	maps.Copy(env, r.Placement.Env)
	// Of two labels that become one variable the lower key wins.
	for _, key := range slices.Backward(slices.Sorted(maps.Keys(facts.Labels))) {
		env["SKERRY_LABEL_"+variable(key)] = facts.Labels[key]
	}
	env["SKERRY_SITE"] = string(facts.Name)
	env["SKERRY_ZONE"] = facts.Zone
	if facts.TimeZone != "" {
		env[EnvTimeZone] = facts.TimeZone
	}
	env["SKERRY_RELEASE"] = r.Placement.Release
	env["SKERRY_VERSION"] = r.Placement.Version
	env["SKERRY_HUB_FILE"] = hubFile
	return env
}

// variable turns a label's key into a part of a variable's name.
func variable(key string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, key)
}

// writeConfig writes the files of a configuration into dir, which no instance has had before: each has a
// directory of its own, made anew at each start and removed after its end, so that what an app reads is what
// its placement says. Nobody but the agent may read the files until a runtime lets its instance.
func writeConfig(dir string, config *app.Config) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of configuration: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open directory of configuration: %w", err)
	}
	defer root.Close()
	for name, content := range config.Contents() {
		name = filepath.FromSlash(name)
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return fmt.Errorf("make directory of configuration: %w", err)
		}
		if err := root.WriteFile(name, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	return nil
}

// linkFile tells apps whether the hub can be reached: one word in a file that is replaced as a whole. Its
// path is in SKERRY_HUB_FILE. Every app may read it, whatever its user.
type linkFile struct{ dir string }

func (l *linkFile) path() string { return filepath.Join(l.dir, "state") }

func (l *linkFile) set(link fleet.Link) error {
	word := "away"
	if link == fleet.LinkConnected {
		word = "connected"
	}
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("make directory of link file: %w", err)
	}
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return fmt.Errorf("open directory of link file: %w", err)
	}
	tmp := l.path() + ".new"
	if err := os.WriteFile(tmp, []byte(word+"\n"), 0o644); err != nil {
		return fmt.Errorf("write link file: %w", err)
	}
	if err := os.Chmod(tmp, 0o644); err != nil {
		return fmt.Errorf("open link file: %w", err)
	}
	if err := os.Rename(tmp, l.path()); err != nil {
		return fmt.Errorf("replace link file: %w", err)
	}
	return nil
}
