package localstack

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttributes puts a child in its own process group, under account a, and has the kernel send it death when the thread that
// forked it ends.
func childAttributes(a *account, death syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// descendants lists the live processes below pid, parents before children. PostgreSQL's backends leave their postmaster's process group
// (each calls setsid), so the group alone does not find them.
func descendants(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if state, parent := procStat(child); state != 'Z' && parent != 0 {
			children[parent] = append(children[parent], child)
		}
	}
	var found []int
	for queue := children[pid]; len(queue) > 0; queue = queue[1:] {
		found = append(found, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return found
}

// procStat returns the state letter and the parent of pid; 0, 0 when there is no such process.
func procStat(pid int) (state byte, parent int) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// The command name stands in parentheses and may itself hold any character.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 2 {
		return 0, 0
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return 0, 0
	}
	return fields[0][0], parent
}

// alive reports whether pid exists and is not a zombie.
func alive(pid int) bool {
	state, _ := procStat(pid)
	return state != 0 && state != 'Z'
}

// memoryDir returns a world-writable folder in memory with minMemory bytes free that programs may be run from (Java unpacks libraries), or "".
func memoryDir() string {
	const dir = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Flags&unix.ST_NOEXEC != 0 {
		return ""
	}
	if fs.Bavail*uint64(fs.Bsize) < minMemory {
		return ""
	}
	return dir
}

// removeSegment removes a System V shared memory segment.
func removeSegment(id int) {
	_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) // a 56-byte leak is all that it can fail to prevent
}
