package localstack

import (
	"os/exec"
	"runtime"
)

// nursery forks a stack's processes from one OS thread that lives until close. A parent-death signal is tied to the thread that
// forked, not to the process: forked from an ordinary goroutine, a service would die whenever the Go runtime retires that thread.
type nursery struct {
	forks chan fork
	gone  chan struct{}
}

type fork struct {
	cmd *exec.Cmd
	err chan error
}

func newNursery() *nursery {
	n := &nursery{forks: make(chan fork), gone: make(chan struct{})}
	go n.run()
	return n
}

func (n *nursery) run() {
	// Never unlocked: when run returns its thread ends, and with it whatever was still running.
	runtime.LockOSThread()
	defer close(n.gone)
	for f := range n.forks {
		f.err <- f.cmd.Start()
	}
}

// start is cmd.Start on the nursery's thread.
func (n *nursery) start(cmd *exec.Cmd) error {
	f := fork{cmd: cmd, err: make(chan error, 1)}
	n.forks <- f
	return <-f.err
}

// close ends the thread. No start may follow.
func (n *nursery) close() {
	close(n.forks)
	<-n.gone
}
