package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skerry-dev/skerry/cmd/internal/service"
	"github.com/skerry-dev/skerry/internal/sitecli"
)

// siteRoot is skerry-site's tree of commands, which does nothing.
func siteRoot() *cobra.Command {
	c := &cobra.Command{Use: "skerry-site"}
	c.AddCommand(sitecli.Commands(sitecli.Deps{Out: io.Discard})...)
	c.AddCommand(service.SiteCommands(service.Options{
		Program: "skerry-site", Out: io.Discard,
		Join: func(context.Context, sitecli.RunOptions) error { return nil },
	})...)
	return c
}

// TestCommandsInDocuments reads every block of commands in the documents and fails for a line whose command or
// flags there are not. Blocks that are marked are run by test/e2e as well; the others need a machine of their own.
func TestCommandsInDocuments(t *testing.T) {
	files, err := filepath.Glob("../../docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	files = append(append(files, more...), "../../README.md", "../../CONTRIBUTING.md")
	checked := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for at, line := range commandLines(string(data)) {
			for _, words := range commandsOf(line) {
				if err := checkCommand(words); err != nil {
					t.Errorf("%s:%d: %s: %v", file, at, strings.Join(words, " "), err)
				}
				checked++
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d commands were found in %d documents", checked, len(files))
	}
}

// commandLines yields the lines of blocks of shell, joined where they continue, by their number.
func commandLines(text string) map[int]string {
	out := map[int]string{}
	in, here, number, begun := false, "", 0, 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\n")
		switch fence := strings.TrimSpace(line); {
		case !in:
			in = fence == "```sh" || fence == "```bash" || fence == "```console"
			begun = 0
			continue
		case fence == "```":
			in, here = false, ""
			continue
		case here != "":
			if fence == here {
				here = ""
			}
			continue
		}
		if begun == 0 {
			begun = number
		}
		out[begun] += " " + strings.TrimSuffix(line, "\\")
		if _, after, ok := strings.Cut(line, "<<"); ok {
			here = strings.Trim(strings.Fields(strings.TrimPrefix(after, "-"))[0], `'"`)
		}
		if !strings.HasSuffix(line, "\\") {
			begun = 0
		}
	}
	return out
}

// commandsOf splits a line of shell into the commands of ours in it, without what the shell itself does.
func commandsOf(line string) [][]string {
	var out [][]string
	var words []string
	flush := func() {
		for i, w := range words {
			if base := filepath.Base(w); base == "skerry" || base == "skerry-site" {
				out = append(out, append([]string{base}, words[i+1:]...))
				break
			}
			if !strings.Contains(w, "=") && w != "sudo" && w != "until" && w != "!" && w != "if" && w != "while" && w != "timeout" && w != "exec" {
				break // another program
			}
		}
		words = nil
	}
	word, quote, open := "", rune(0), false
	end := func() {
		if open {
			words = append(words, word)
		}
		word, open = "", false
	}
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == '$' && i+1 < len(runes) && runes[i+1] == '(':
			i++
			end()
			flush()
		case r == ' ' || r == '\t':
			end()
		case r == '#' && !open:
			end()
			flush()
			return out
		case strings.ContainsRune("|;&()", r):
			end()
			flush()
		case r == '>' || r == '<':
			end()
			flush()
			for i+1 < len(runes) && !strings.ContainsRune("|;&", runes[i+1]) {
				i++ // the rest of the command is where it is written to
			}
		default:
			word += string(r)
			open = true
		}
	}
	end()
	flush()
	return out
}

func checkCommand(words []string) error {
	tree := root()
	if words[0] == "skerry-site" {
		tree = siteRoot()
	}
	if len(words) == 1 || strings.HasPrefix(words[1], "-") {
		return nil
	}
	c, rest, err := tree.Find(words[1:])
	if err != nil {
		return err
	}
	if c == tree || !c.Runnable() {
		return fmt.Errorf("%s is no command that does something", c.CommandPath())
	}
	if c.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && c.Args == nil {
		return fmt.Errorf("%s has no command %s", c.CommandPath(), rest[0])
	}
	c.InheritedFlags() // merges those of its parents
	for i, w := range rest {
		if w == "--" {
			break
		}
		name, _, _ := strings.Cut(w, "=")
		var flag *pflag.Flag
		switch {
		case strings.HasPrefix(name, "--"):
			flag = c.Flag(name[2:])
			if name == "--help" {
				continue
			}
		case strings.HasPrefix(name, "-") && len(name) > 1 && (name[1] < '0' || name[1] > '9'):
			if flag = c.Flags().ShorthandLookup(name[1:2]); flag == nil {
				flag = c.InheritedFlags().ShorthandLookup(name[1:2])
			}
			if name[1] == 'h' {
				continue
			}
		default:
			continue
		}
		if flag == nil {
			return fmt.Errorf("there is no flag %s (word %d)", name, i+1)
		}
	}
	return nil
}

func TestCommandsAreChecked(t *testing.T) {
	for _, row := range []struct {
		line  string
		found int
		wrong bool
	}{
		{"skerry events --site shop-2 -w", 1, false},
		{"skerry events --sites shop-2", 1, true},
		{"skerry evnets", 1, true},
		{"skerry site", 1, false},
		{"skerry site token gate-7 --label kind=toll --install   # a comment with skerry nonsense", 1, false},
		{"sudo bin/skerry hub install -- --whatever", 1, false},
		{"TOKEN=$(skerry site token NAME) && skerry-site run --join $TOKEN", 2, false},
		{"skerry-site run --jion x", 1, true},
		{"curl -s https://skerry.example/ | sh -c 'skerry nonsense'", 0, false},
		{"skerry get site x -o yaml > skerry nonsense", 1, false},
	} {
		commands := commandsOf(row.line)
		if len(commands) != row.found {
			t.Errorf("%s: found %q", row.line, commands)
		}
		wrong := false
		for _, c := range commands {
			wrong = wrong || checkCommand(c) != nil
		}
		if wrong != row.wrong {
			t.Errorf("%s: wrong is %v", row.line, wrong)
		}
	}
}
