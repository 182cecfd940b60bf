package agent

import (
	"context"
	"os/exec"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// askTimeout bounds the question to the service manager: the agent's last words must not wait for it.
const askTimeout = 500 * time.Millisecond

// leaving asks the service manager why it stops this agent. Where there is none, somebody stopped it.
func leaving() fleet.Leaving {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "list-jobs", "--no-legend", "--plain").Output()
	if err != nil {
		return fleet.LeavingStop
	}
	return leavingBy(string(out))
}

// leavingBy reads the jobs of systemd (systemctl list-jobs): number, unit, type, state. The target that the machine
// is going to is among them while it goes down.
func leavingBy(jobs string) fleet.Leaving {
	for line := range strings.Lines(jobs) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "start" {
			continue
		}
		switch fields[1] {
		case "reboot.target", "kexec.target", "soft-reboot.target":
			return fleet.LeavingReboot
		case "poweroff.target", "halt.target":
			return fleet.LeavingPowerOff
		}
	}
	return fleet.LeavingStop
}
