package appsite

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/skerry-dev/skerry/internal/fleet"
)

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
