// Package testenv says what a test may expect of the machine it runs on. Only test files import it.
//
// A test that needs a tool or a right calls Need first: where it is missing the test is skipped with the
// name of what is missing, or fails when SKERRY_REQUIRE_ALL=1, so that CI cannot skip in silence.
package testenv

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// requireAll makes a missing need a failure.
const requireAll = "SKERRY_REQUIRE_ALL"

// A Need is something a test cannot do without.
type Need struct {
	// Name is said to the person who reads the skip.
	Name string
	// Met reports whether the machine has it.
	Met func() bool
}

// Tool is a program on the PATH.
func Tool(name string) Need {
	return Need{Name: "the program " + name, Met: func() bool { _, err := exec.LookPath(name); return err == nil }}
}

// Root is the right to act as the machine's administrator.
func Root() Need {
	return Need{Name: "root", Met: func() bool { return os.Geteuid() == 0 }}
}

// MemoryDir is a directory in memory, on most machines.
const MemoryDir = "/dev/shm"

// Memory is a tmpfs at MemoryDir that all may write.
func Memory() Need {
	return Need{Name: "a tmpfs at " + MemoryDir, Met: func() bool {
		const tmpfs = 0x01021994 // statfs(2)
		var s syscall.Statfs_t
		return syscall.Statfs(MemoryDir, &s) == nil && s.Type == tmpfs
	}}
}

// Require skips or fails the test unless every need is met.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	for _, n := range needs {
		if n.Met() {
			continue
		}
		if os.Getenv(requireAll) == "1" {
			t.Fatalf("needs %s, which this machine lacks, and %s=1 forbids to skip", n.Name, requireAll)
		}
		t.Skipf("SKIPPED: needs %s, which this machine lacks", n.Name)
	}
}
