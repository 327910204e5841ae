//go:build unix && !linux

package localstack

import "syscall"

// childAttributes puts a child in its own process group, under account a. Without Linux's parent-death signal a SIGKILL of this
// process leaves its services running.
func childAttributes(a *account, _ syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// descendants is unknown without /proc; signals then reach the process group only.
func descendants(int) []int { return nil }

// alive reports whether pid exists.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// memoryDir is unknown here.
func memoryDir() string { return "" }

// removeSegment does nothing here: the next start of the same server removes its segment.
func removeSegment(int) {}
