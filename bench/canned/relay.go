package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// conn is one connection of the pooler, and the one to the server for it.
//
//	             reads                  writes
//	pass         from the server        to the pooler, what it has read
//	run          from the pooler        to the server; to the pooler, while the server owes nothing
type conn struct {
	pooler, server net.Conn
	statement      []byte

	in   []byte // from the pooler, not yet looked at: in[at:]
	at   int
	unit []byte // a request as it came last that is answered here, up to its Query or Sync: the next one mostly is the same
	out  []byte // answer to unit, many times over
	size int    // of one of them

	mu    sync.Mutex
	owed  int       // Querys and Syncs that the server has not answered
	quiet sync.Cond // owed is 0, or pass has ended
	ended bool
}

const (
	bufferSize = 256 << 10
	atOnce     = bufferSize / 32 // answers in one write
)

// relay serves one connection until either side ends it.
func relay(pooler net.Conn, server, statement string) error {
	defer pooler.Close() //nolint:errcheck // nothing can be done about it
	s, err := net.Dial("tcp", server)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing can be done about it
	c := &conn{pooler: pooler, server: s, statement: append([]byte(statement), 0), in: make([]byte, 0, bufferSize)}
	c.quiet.L = &c.mu
	c.owed = 1 // the login ends with ReadyForQuery
	passed := make(chan error, 1)
	go func() {
		err := c.pass()
		_ = pooler.Close() // which ends run
		passed <- err
	}()
	err = c.run()
	_ = s.Close() // which ends pass
	if perr := <-passed; errors.Is(err, net.ErrClosed) {
		err = perr
	}
	for _, end := range []error{net.ErrClosed, io.EOF, syscall.ECONNRESET, syscall.EPIPE} { // however a pooler leaves
		if errors.Is(err, end) {
			return nil
		}
	}
	return err
}

// pass gives the pooler what the server sends.
func (c *conn) pass() error {
	defer func() {
		c.mu.Lock()
		c.ended = true
		c.quiet.Broadcast()
		c.mu.Unlock()
	}()
	var have []byte
	buf := make([]byte, 64<<10)
	for plain := true; ; {
		n, err := c.server.Read(buf)
		if err != nil {
			return err
		}
		if _, err := c.pooler.Write(buf[:n]); err != nil {
			return err
		}
		have = append(have, buf[:n]...)
		if plain && len(have) == 1 && have[0] == 'N' { // no TLS, said before the login
			have = have[:0]
			continue
		}
		plain = false
		ready := 0
		for len(have) >= 5 {
			size := 1 + int(binary.BigEndian.Uint32(have[1:]))
			if len(have) < size {
				break
			}
			if have[0] == 'Z' {
				ready++
			}
			have = have[:copy(have, have[size:])]
		}
		if ready > 0 {
			c.mu.Lock()
			if c.owed -= ready; c.owed == 0 {
				c.quiet.Broadcast()
			}
			c.mu.Unlock()
		}
	}
}

// run takes what the pooler sends, request by request.
func (c *conn) run() error {
	if err := c.login(); err != nil {
		return err
	}
	for {
		n, err := c.request()
		if err != nil {
			return err
		}
		request := c.in[c.at : c.at+n]
		canned, answer := c.answer(request)
		if !canned {
			if err := c.forward(request); err != nil {
				return err
			}
			c.at += n
			continue
		}
		if !bytes.Equal(c.unit, request) {
			c.unit, c.size = append(c.unit[:0], request...), len(answer)
			c.out = bytes.Repeat(answer, atOnce)
		}
		if err := c.repeat(); err != nil {
			return err
		}
	}
}

// login passes on the messages that have no type: a request for TLS, then the startup message.
func (c *conn) login() error {
	for {
		if err := c.need(8); err != nil {
			return err
		}
		size, code := int(binary.BigEndian.Uint32(c.in[c.at:])), binary.BigEndian.Uint32(c.in[c.at+4:])
		if err := c.need(size); err != nil {
			return err
		}
		if _, err := c.server.Write(c.in[c.at : c.at+size]); err != nil {
			return err
		}
		if c.at += size; code>>16 == 3 {
			return nil
		}
	}
}

// request waits for messages up to the first that is none of a batch, or ends or flushes it, and returns their size.
func (c *conn) request() (n int, err error) {
	for {
		if err := c.need(n + 5); err != nil {
			return 0, err
		}
		kind := c.in[c.at+n]
		n += 1 + int(binary.BigEndian.Uint32(c.in[c.at+n+1:]))
		if err := c.need(n); err != nil {
			return 0, err
		}
		if kind != 'P' && kind != 'B' && kind != 'D' && kind != 'E' && kind != 'C' {
			return n, nil
		}
	}
}

// answer is what a request that is for this program gets. A batch is if it parses the statement, or if the one before was: the
// poolers do not mix statements on a connection here.
func (c *conn) answer(request []byte) (canned bool, answer []byte) {
	canned = request[0] == 'B' && c.unit != nil
	for rest := request; len(rest) > 0; {
		kind, size := rest[0], 1+int(binary.BigEndian.Uint32(rest[1:]))
		body := rest[5:size]
		rest = rest[size:]
		switch kind {
		case 'Q':
			canned = bytes.Equal(body, c.statement)
			answer = append(append(append(answer, description...), row...), ready...)
		case 'P':
			_, text, _ := bytes.Cut(body, []byte{0})
			canned = bytes.HasPrefix(text, c.statement)
			answer = append(answer, '1', 0, 0, 0, 4)
		case 'B':
			answer = append(answer, '2', 0, 0, 0, 4)
		case 'D':
			if body[0] == 'S' {
				answer = append(answer, "t\x00\x00\x00\x06\x00\x00"...)
			}
			answer = append(answer, description...)
		case 'E':
			answer = append(answer, row...)
		case 'C':
			answer = append(answer, '3', 0, 0, 0, 4)
		case 'H':
		case 'S':
			answer = append(answer, ready...)
		default:
			return false, nil
		}
	}
	return canned, answer
}

// The messages of the answer.
const (
	description = "T\x00\x00\x00\x1f\x00\x01canned\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00"
	row         = "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011" + "C\x00\x00\x00\x0dSELECT 1\x00"
	ready       = "Z\x00\x00\x00\x05I"
)

// forward gives the server a request.
func (c *conn) forward(request []byte) error {
	if last := request[0]; last == 'Q' || bytes.HasSuffix(request, []byte("S\x00\x00\x00\x04")) {
		c.mu.Lock()
		c.owed++
		c.mu.Unlock()
	}
	_, err := c.server.Write(request)
	return err
}

// repeat answers all that has come and equals unit.
func (c *conn) repeat() error {
	c.mu.Lock()
	for c.owed > 0 && !c.ended {
		c.quiet.Wait()
	}
	c.mu.Unlock()
	n := 0
	for bytes.HasPrefix(c.in[c.at:], c.unit) {
		c.at += len(c.unit)
		n++
	}
	for n > 0 {
		k := min(n, atOnce)
		if _, err := c.pooler.Write(c.out[:k*c.size]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// need reads until n bytes have come.
func (c *conn) need(n int) error {
	for len(c.in)-c.at < n {
		if c.at > 0 {
			c.in = c.in[:copy(c.in, c.in[c.at:])]
			c.at = 0
		}
		if n > cap(c.in) {
			return fmt.Errorf("message of %d bytes", n)
		}
		k, err := c.pooler.Read(c.in[len(c.in):cap(c.in)])
		if err != nil {
			return err
		}
		c.in = c.in[:len(c.in)+k]
	}
	return nil
}
