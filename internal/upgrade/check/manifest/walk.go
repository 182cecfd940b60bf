package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

// Input is what was read.
type Input struct {
	Files   int
	Objects []*check.Object
	// Findings are of RuleUnusable and RuleSkipped.
	Findings []check.Finding
}

// Unusable reports whether something could not be read.
func (in *Input) Unusable() bool {
	return slices.ContainsFunc(in.Findings, func(f check.Finding) bool { return f.Rule == RuleUnusable })
}

// reader gathers an Input.
type reader struct {
	Input
	limits Limits
	bytes  int64
	seen   map[string]bool // files by their cleaned path
	again  int             // how often a file was met that had been read
}

// Read reads files, folders with all below them, and standard input for Stdin. In folders it takes files that end
// with .yaml, .yml or .json and leaves folders whose name begins with a dot; a document there that is no Kubernetes
// object is passed over, and one that is broken is a finding if it looks like one.
func Read(paths []string, stdin io.Reader, limits Limits) *Input {
	r := &reader{limits: limits, seen: map[string]bool{}}
	for _, p := range paths {
		objects, findings, again := len(r.Objects), len(r.Findings), r.again
		r.path(p, stdin)
		if len(r.Objects) == objects && len(r.Findings) == findings && r.again == again {
			r.unusable(p, 0, "it holds no Kubernetes object", "name files or folders with manifests")
		}
	}
	return &r.Input
}

func (r *reader) path(p string, stdin io.Reader) {
	if p == Stdin {
		r.stream(Stdin, stdin, true)
		return
	}
	info, err := os.Stat(p)
	switch {
	case err != nil:
		r.failed(p, err)
	case info.IsDir():
		r.folder(p)
	default:
		r.file(p, true)
	}
}

// folder reads what is below a folder, in lexical order.
func (r *reader) folder(top string) {
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			r.failed(p, err)
			return nil
		case d.IsDir() && p != top && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir():
			if _, err := os.Stat(filepath.Join(p, "Chart.yaml")); err == nil {
				r.skipped(p, 0, "", "it is a Helm chart, and charts are not rendered yet", "check what it renders: helm template "+p+" | skerry check -")
				return fs.SkipDir
			}
			return nil
		case !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(p))):
			return nil
		}
		info, err := os.Stat(p) // follows a link
		switch {
		case err != nil:
			r.failed(p, err)
		case info.IsDir():
			r.skipped(p, 0, "", "it is a link to a folder, and these are not followed", "name the folder itself")
		case info.Mode().IsRegular():
			r.file(p, false)
		}
		return nil
	})
	if err != nil {
		r.failed(top, err)
	}
}

func (r *reader) file(p string, named bool) {
	clean := filepath.Clean(p)
	if r.seen[clean] {
		r.again++
		return
	}
	r.seen[clean] = true
	f, err := os.Open(p)
	if err != nil {
		r.failed(p, err)
		return
	}
	defer f.Close()
	r.stream(p, f, named)
}

// stream reads one file. Of one that was named, everything that is broken is a finding.
func (r *reader) stream(name string, in io.Reader, named bool) {
	if r.Files >= r.limits.Files {
		r.tooMuch(name, fmt.Sprintf("more than %d files were given", r.limits.Files))
		return
	}
	r.Files++
	room := min(r.limits.FileBytes, r.limits.TotalBytes-r.bytes)
	data, err := io.ReadAll(io.LimitReader(in, room+1))
	if err != nil {
		r.failed(name, err)
		return
	}
	if int64(len(data)) > room {
		r.tooMuch(name, fmt.Sprintf("it is larger than the %d bytes that a file may have, or all files together are larger than %d", r.limits.FileBytes, r.limits.TotalBytes))
		return
	}
	r.bytes += int64(len(data))
	p := parser{limits: r.limits, room: r.limits.Objects - len(r.Objects), file: name, named: named}
	p.text(data)
	r.Objects = append(r.Objects, p.objects...)
	r.Findings = append(r.Findings, p.findings...)
}

func (r *reader) failed(p string, err error) {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	r.unusable(p, 0, err.Error(), "")
}

func (r *reader) tooMuch(p, reason string) {
	r.unusable(p, 0, reason, "check it in parts")
}

func (r *reader) unusable(p string, line int, reason, fix string) {
	r.Findings = append(r.Findings, check.Finding{Rule: RuleUnusable, Severity: check.Failure, File: p, Line: line, Reason: reason, Fix: fix})
}

func (r *reader) skipped(p string, line int, object, reason, fix string) {
	r.Findings = append(r.Findings, check.Finding{Rule: RuleSkipped, Severity: check.Warning, File: p, Line: line, Object: object, Reason: reason, Fix: fix})
}
