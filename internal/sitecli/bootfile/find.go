package bootfile

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Label is the file system label of a medium whose file is looked at before those of other media.
const Label = "SKERRY"

// mediumFile is the name of the file at the top of a medium.
const mediumFile = "skerry-site.yaml"

// SystemFile is the file of the machine itself, which an image or cloud-init brings.
const SystemFile = "/etc/skerry/site.yaml"

// ErrNone means that no file was found.
var ErrNone = errors.New("no configuration was found")

// Find returns the first file of a machine that nobody told anything: SystemFile; skerry-site.yaml at the top of a
// mounted medium with Label; and the same on what desktops and boards mount. Of several media of one kind the first by
// name is taken. Nothing is mounted. root is put before every path; "/" for this machine.
func Find(root string) (string, error) {
	candidates := []string{filepath.Join(root, SystemFile)}
	for _, at := range labelled(root) {
		candidates = append(candidates, filepath.Join(root, at, mediumFile))
	}
	for _, pattern := range []string{"media/*", "media/*/*", "run/media/*/*", "boot/firmware"} {
		found, err := filepath.Glob(filepath.Join(root, pattern, mediumFile))
		if err != nil {
			return "", fmt.Errorf("look for a configuration: %w", err)
		}
		slices.Sort(found)
		candidates = append(candidates, found...)
	}
	for _, path := range candidates {
		info, err := os.Stat(path)
		switch {
		case err == nil && info.Mode().IsRegular():
			return path, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
			return "", fmt.Errorf("look for a configuration: %w", err)
		}
	}
	return "", ErrNone
}

// labelled returns where the device with Label is mounted, as mountinfo of proc(5) says; nothing when it is not.
func labelled(root string) (at []string) {
	device, err := filepath.EvalSymlinks(filepath.Join(root, "dev/disk/by-label", Label))
	if err != nil {
		return nil
	}
	mounts, err := os.Open(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return nil
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		if filepath.Join(root, unescape(right[1])) == device {
			at = append(at, unescape(left[4]))
		}
	}
	slices.Sort(at)
	return at
}

// unescape undoes the octal escapes of proc(5).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
