package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawn starts cmd inside group, with no_new_privs, in a process group of its own.
//
// Both no_new_privs and the membership in a version 1 control group are inherited from the thread that
// forks. They are set on a thread made for this and thrown away after: a goroutine that ends while locked
// to its thread takes the thread with it. New threads of the Go runtime are never cloned from a locked one.
func spawn(cmd *exec.Cmd, group *group, uid int) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	dir := group.unifiedDir()
	if dir != nil {
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	}
	result := make(chan error, 1)
	go spawnHere(cmd, group, result)
	return <-result
}

func spawnHere(cmd *exec.Cmd, group *group, result chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread cannot be thrown away. While it is locked here the next goroutine gets another.
		inner := make(chan error, 1)
		go spawnHere(cmd, group, inner)
		result <- <-inner
		runtime.UnlockOSThread()
		return
	}
	result <- forkHere(cmd, group)
}

func forkHere(cmd *exec.Cmd, group *group) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := group.enter(unix.Gettid()); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return nil
}

// hopeless reports whether the kernel refuses the program itself, so that another try would end the same.
func hopeless(err error) bool {
	for _, errno := range []error{unix.ENOEXEC, unix.EACCES, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.E2BIG, unix.EINVAL, unix.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// awaitExit returns when the process has exited, leaving it to be reaped: until then neither its id nor
// that of its group is given to another.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
