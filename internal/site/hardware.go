package site

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// ReadHardware describes this machine. What cannot be read is left out.
func ReadHardware() fleet.Hardware {
	hw := fleet.Hardware{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	hw.Hostname, _ = os.Hostname()
	if data, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		hw.Kernel = strings.TrimSpace(string(data))
	}
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		hw.MemoryBytes = parseMemTotal(string(data))
	}
	return hw
}

// parseMemTotal reads the line "MemTotal: N kB" of /proc/meminfo (see proc(5)).
func parseMemTotal(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}
