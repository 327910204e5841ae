package loop

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uring sends several messages with one system call, by io_uring. Nothing is ever left under way in it, since each send is tried at once and
// does not wait. Its layout is that of the kernel's include/uapi/linux/io_uring.h.
type uring struct {
	fd      int
	maps    [2][]byte
	entries []uringEntry
	tail    *uint32 // of entries: how many the kernel may take since the start; ours
	more    uint32  // how many were put there behind them
	results []uringResult
	head    *uint32 // of results: how many were taken; ours
	filled  *uint32 // ... and how many are there; the kernel's
}

// uringEntry is struct io_uring_sqe.
type uringEntry struct {
	op, flags uint8
	priority  uint16
	fd        int32
	offset    uint64
	addr      uint64
	len       uint32
	opFlags   uint32
	datum     uint64
	_         [3]uint64
}

// uringResult is struct io_uring_cqe.
type uringResult struct {
	datum uint64
	res   int32 // bytes, or a negative errno
	flags uint32
}

// uringParams is struct io_uring_params.
type uringParams struct {
	entries, results, flags, cpu, idle, features, workers uint32
	_                                                     [3]uint32
	put                                                   struct { // where what is in the map of the rings, in bytes
		_, tail, _, _, _, _, array, _ uint32
		_                             uint64
	}
	got struct {
		head, tail, _, _, _, results, _, _ uint32
		_                                  uint64
	}
}

const (
	uringOpSend     = 26         // IORING_OP_SEND
	uringFeatures   = 1 | 1<<12  // IORING_FEAT_SINGLE_MMAP, which the maps here rely on, and IORING_FEAT_LINKED_FILE: Linux 5.19, older ones are left alone
	uringMapEntries = 0x10000000 // IORING_OFF_SQES
	uringGetEvents  = 1          // IORING_ENTER_GETEVENTS
)

// newUring is for up to n sends at a time, a power of two. An error says why the system does not let this process have it: many containers
// may not.
func newUring(n int) (*uring, error) {
	var p uringParams
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(n), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	u := &uring{fd: int(fd)}
	if p.features&uringFeatures != uringFeatures {
		u.close()
		return nil, errors.New("the io_uring of a Linux before 5.19")
	}
	rings := max(p.put.array+4*p.entries, p.got.results+p.results*uint32(unsafe.Sizeof(uringResult{})))
	sizes := [2]int{int(rings), int(p.entries) * int(unsafe.Sizeof(uringEntry{}))}
	for i, offset := range [2]int64{0, uringMapEntries} {
		var err error
		if u.maps[i], err = unix.Mmap(u.fd, offset, sizes[i], unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
			u.close()
			return nil, os.NewSyscallError("mmap", err)
		}
	}
	at := func(offset uint32) unsafe.Pointer { return unsafe.Pointer(&u.maps[0][offset]) }
	u.entries = unsafe.Slice((*uringEntry)(unsafe.Pointer(&u.maps[1][0])), p.entries)
	u.results = unsafe.Slice((*uringResult)(at(p.got.results)), p.results)
	u.tail, u.head, u.filled = (*uint32)(at(p.put.tail)), (*uint32)(at(p.got.head)), (*uint32)(at(p.got.tail))
	for i := range p.entries { // entries are taken in their order
		*(*uint32)(at(p.put.array + 4*i)) = i
	}
	return u, nil
}

func (u *uring) close() {
	for _, m := range u.maps {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	_ = unix.Close(u.fd) // nothing is under way
}

// put makes sending p to fd a part of the next send, which calls it id. p must stay where it is until then.
func (u *uring) put(id, fd int, p []byte) {
	u.entries[(*u.tail+u.more)%uint32(len(u.entries))] = uringEntry{
		op: uringOpSend, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&p[0]))), len: uint32(len(p)), opFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, datum: uint64(id),
	}
	u.more++
}

// send sends what was put, and tells done, by its id and in any order, how many bytes of each went out: 0 for one that failed. It returns
// false when the kernel has not taken all of them: those were not tried, and done hears nothing of them.
func (u *uring) send(done func(id, sent int)) bool {
	n := u.more
	u.more = 0
	atomic.StoreUint32(u.tail, *u.tail+n)
	took := u.enter(n, 0)
	if took < n {
		atomic.StoreUint32(u.tail, *u.tail-(n-took))
	}
	for left := took; left > 0; {
		head, filled := *u.head, atomic.LoadUint32(u.filled)
		for ; head != filled; head++ {
			r := &u.results[head%uint32(len(u.results))]
			done(int(r.datum), max(int(r.res), 0))
			left--
		}
		if atomic.StoreUint32(u.head, head); left > 0 {
			u.enter(0, left) // a send that was not done at once, which no kernel is known to do
		}
	}
	return took == n
}

// enter has the kernel take n entries, waits for as many results, and returns how many it took. No send waits, so the scheduler need not know.
func (u *uring) enter(n, wait uint32) uint32 {
	flags := 0
	if wait > 0 {
		flags = uringGetEvents
	}
	took, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), uintptr(n), uintptr(wait), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0
	}
	return uint32(took)
}
