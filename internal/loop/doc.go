// Package loop is the I/O engine: it runs sessions as tasks that read like blocking code and wait on sets of connections,
// timers and a mailbox, without a goroutine wake-up per message.
//
// A task looks like this. Each Read and Write does what is possible now; Wait suspends the task until more is.
//
//	eng.Go(func(t *loop.Task) {
//		defer c.Close()
//		t.Own(c)
//		for {
//			n, err := c.Read(buf)
//			switch {
//			case errors.Is(err, loop.ErrWouldBlock):
//				if t.Wait(time.Now().Add(idleTimeout), loop.Source{Conn: c, For: loop.Readable}) != loop.Ready {
//					return
//				}
//			case err != nil:
//				return
//			default:
//				handle(buf[:n])
//			}
//		}
//	})
//
// A task that passes data between two connections must wait for all that it can use at once: a relay that only writes while
// it writes deadlocks with a peer that does the same.
//
// DESIGN.md beside this file holds the invariants: who may resume a task, how stale events are told from fresh ones, who owns
// what, and how tasks and their failures stay apart.
package loop
