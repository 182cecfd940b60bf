package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// procStat is the part of /proc/<pid>/stat, as of proc_pid_stat(5), that tells one process from another.
type procStat struct {
	state byte
	pgrp  int
	// start is in clock ticks since the machine's boot.
	start uint64
}

func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(data)
}

// parseStat reads the line after the program's name, which may itself hold spaces and parentheses.
func parseStat(data []byte) (procStat, error) {
	const state, pgrp, start = 0, 2, 19
	end := bytes.LastIndexByte(data, ')')
	fields := strings.Fields(string(data[end+1:]))
	if end < 0 || len(fields) <= start {
		return procStat{}, fmt.Errorf("process status %q has too few fields", data)
	}
	var s procStat
	var err error
	s.state = fields[state][0]
	if s.pgrp, err = strconv.Atoi(fields[pgrp]); err != nil {
		return s, fmt.Errorf("process group: %w", err)
	}
	if s.start, err = strconv.ParseUint(fields[start], 10, 64); err != nil {
		return s, fmt.Errorf("start time: %w", err)
	}
	return s, nil
}

// bootID names this boot of the machine: process ids and start times mean nothing in another.
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// allPIDs lists the processes that are there now.
func allPIDs() []int {
	names, _ := filepath.Glob("/proc/[0-9]*")
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive reports whether the process exists and is more than a zombie.
func alive(pid int) bool {
	s, err := readStat(pid)
	return err == nil && s.state != 'Z' && s.state != 'X'
}

// hasEnv reports whether the process was started with the variable set so. It is false for a process
// whose environment may not be read.
func hasEnv(pid int, variable string) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.Contains(strings.Split(string(data), "\x00"), variable)
}
