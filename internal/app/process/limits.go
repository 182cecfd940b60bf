package process

import (
	"path/filepath"
	"strconv"

	"github.com/skerry-dev/skerry/internal/app"
)

// setting is one limit in the files of both versions.
type setting struct {
	controller, name, shown string
	v2, v1                  [][2]string
	// wish are files whose absence is no fault: they close a way around the limit.
	wish map[string]bool
}

// declared lists the limits that are set. File formats: the kernel's admin-guide/cgroup-v2 and cgroup-v1.
func declared(l app.Limits) []setting {
	var out []setting
	if l.MemoryBytes > 0 {
		n := strconv.FormatInt(l.MemoryBytes, 10)
		out = append(out, setting{
			controller: "memory", name: "memory", shown: n + " bytes",
			v2:   [][2]string{{"memory.max", n}, {"memory.swap.max", "0"}, {"memory.oom.group", "1"}},
			v1:   [][2]string{{"memory.limit_in_bytes", n}, {"memory.memsw.limit_in_bytes", n}},
			wish: map[string]bool{"memory.swap.max": true, "memory.oom.group": true, "memory.memsw.limit_in_bytes": true},
		})
	}
	if l.CPUMillis > 0 {
		// In microseconds; the period is the kernel's default, and 1000 the least quota that it takes.
		const period = 100_000
		quota := strconv.Itoa(max(l.CPUMillis*(period/1000), 1000))
		out = append(out, setting{
			controller: "cpu", name: "CPU", shown: strconv.Itoa(l.CPUMillis) + " thousandths",
			v2: [][2]string{{"cpu.max", quota + " " + strconv.Itoa(period)}},
			v1: [][2]string{{"cpu.cfs_period_us", strconv.Itoa(period)}, {"cpu.cfs_quota_us", quota}},
		})
	}
	if l.PIDs > 0 {
		// One more until settle: in version 1 the forking thread is counted too.
		n := strconv.Itoa(l.PIDs + 1)
		out = append(out, setting{
			controller: "pids", name: "process", shown: strconv.Itoa(l.PIDs),
			v2: [][2]string{{"pids.max", n}}, v1: [][2]string{{"pids.max", n}},
		})
	}
	return out
}

func (g *group) limit(s setting) error {
	dir, files := g.dir(s.controller), s.v1
	if _, legacy := g.legacy[s.controller]; !legacy {
		files = s.v2
	}
	for _, f := range files {
		if err := writeFile(filepath.Join(dir, f[0]), f[1]); err != nil && !s.wish[f[0]] {
			return err
		}
	}
	return nil
}
