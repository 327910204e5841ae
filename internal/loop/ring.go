package loop

// ring is a bounded queue of bytes. What room and data return may be used without the lock that guards the ring, by the
// one goroutine that fills, or empties, it.
type ring struct {
	buf   []byte
	start int // index of the first filled byte
	n     int // filled bytes
}

// room returns the next free bytes that lie together. Fill some, then add their number to n.
func (r *ring) room() []byte {
	end := r.start + r.n
	if end < len(r.buf) {
		return r.buf[end:]
	}
	return r.buf[end-len(r.buf) : r.start]
}

// data returns the next filled bytes that lie together. Use some, then drop them.
func (r *ring) data() []byte { return r.buf[r.start:min(r.start+r.n, len(r.buf))] }

// grow is for the one that fills it.
func (r *ring) grow(size int) {
	buf := make([]byte, size)
	n := r.n
	r.read(buf)
	r.buf, r.start, r.n = buf, 0, n
}

func (r *ring) drop(n int) {
	r.n -= n
	r.start += n
	if r.start >= len(r.buf) {
		r.start -= len(r.buf)
	}
}

func (r *ring) read(p []byte) int {
	total := 0
	for r.n > 0 && total < len(p) {
		n := copy(p[total:], r.data())
		r.drop(n)
		total += n
	}
	return total
}

func (r *ring) write(p []byte) int {
	total := 0
	for r.n < len(r.buf) && total < len(p) {
		n := copy(r.room(), p[total:])
		r.n += n
		total += n
	}
	return total
}
