package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// bulk moves a large result, and a COPY each way, through fresh processes.
func bulk(b *bench) *scenario {
	rows := func(width int) int { return int(b.gigabytes * 1e9 / float64(width)) }
	query := func(width int) string {
		return fmt.Sprintf("SELECT generate_series(1, %d) AS id, repeat('x', %d) AS filler", rows(width), width)
	}
	stall := 3 * time.Second
	if b.quick {
		stall = time.Second
	}
	read := func(sql string, stall time.Duration) func(context.Context, *peer) (sample, error) {
		return func(ctx context.Context, p *peer) (sample, error) {
			return p.transfer(ctx, func(c net.Conn) (int64, error) { return readResult(c, sql, stall) })
		}
	}
	write := func(move func(net.Conn) (int64, error)) func(context.Context, *peer) (sample, error) {
		return func(ctx context.Context, p *peer) (sample, error) { return p.transfer(ctx, move) }
	}
	value := 1_000_000_000 // PostgreSQL's limit is 2^30 bytes with what is around it
	if b.quick {
		value /= 10
	}
	one := func(what string) string { return fmt.Sprintf("%s %g GB", what, float64(value)/1e9) }
	return &scenario{
		name: "bulk", title: "Large results and COPY",
		note: fmt.Sprintf("%g GB through one connection, by rows of the given width, or as one value; the server makes them up, or parses and drops them, and the client discards. *stalled*: the reader stops for "+
			"%s at the first megabyte and again every 256 MB. Memory is the peak of a new process. Goal: half of PgBouncer's CPU.", b.gigabytes, stall),
		keys: []string{"transfer"}, cost: "CPU s/GB", fresh: true,
		columns: []column{
			{name: "MB/s"},
			{name: "user s/GB", digits: 2, proxy: true},
			{name: "system s/GB", digits: 2, proxy: true},
			{name: "CPU s/GB", digits: 2, proxy: true},
			{name: "peak MB", digits: 1, proxy: true},
		},
		points: []point{
			{labels: []string{"SELECT, 100 B"}, measure: read(query(100), 0)},
			{labels: []string{"SELECT, 1000 B"}, measure: read(query(1000), 0)},
			{labels: []string{"SELECT, 1000 B, stalled"}, measure: read(query(1000), stall)},
			{labels: []string{"COPY TO, 1000 B"}, measure: read("COPY ("+query(1000)+") TO STDOUT", 0)},
			{labels: []string{"COPY FROM, 1000 B"}, measure: write(func(c net.Conn) (int64, error) { return writeCopy(c, rows(1000), 1000) })},
			{labels: []string{one("SELECT, one value of")}, measure: read(fmt.Sprintf("SELECT repeat('x', %d)", value), 0)},
			{labels: []string{one("COPY FROM, one row of")}, measure: write(func(c net.Conn) (int64, error) { return writeRow(c, value) })},
			{labels: []string{one("one parameter of")}, measure: write(func(c net.Conn) (int64, error) { return writeParameter(c, value) })},
		},
	}
}

// transfer logs in, hands the bare connection to move, which returns the bytes it has moved, and reads what the proxy used.
func (p *peer) transfer(ctx context.Context, move func(net.Conn) (int64, error)) (sample, error) {
	pg, err := pgconn.Connect(ctx, p.dsn(false, false))
	if err != nil {
		return nil, err
	}
	h, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	defer h.Conn.Close() //nolint:errcheck // its work is done or has failed
	defer context.AfterFunc(ctx, func() { _ = h.Conn.Close() })()
	before, err := p.usage()
	if err != nil {
		return nil, err
	}
	from := time.Now()
	n, err := move(h.Conn)
	if err != nil {
		return nil, err
	}
	took := time.Since(from).Seconds()
	after, err := p.usage()
	if err != nil {
		return nil, err
	}
	gb := float64(n) / 1e9
	user, system := (after.user-before.user).Seconds()/gb, (after.system-before.system).Seconds()/gb
	return sample{float64(n) / 1e6 / took, user, system, user + system, float64(after.peak) / (1 << 20)}, nil
}

// bulkBuffer is what the client reads and writes at once: much, so that it takes little from the processors that all share.
const bulkBuffer = 256 << 10

// readResult runs a statement and skips over its messages until ReadyForQuery.
func readResult(c net.Conn, sql string, stall time.Duration) (total int64, err error) {
	if _, err := c.Write(message('Q', sql+"\x00")); err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(&stalling{Conn: c, pause: stall, next: 1 << 20}, bulkBuffer)
	for {
		kind, size, err := header(in)
		if err != nil {
			return total, err
		}
		total += int64(size) + 5
		if kind == 'E' {
			return total, serverError(in, size)
		}
		if _, err := in.Discard(size); err != nil {
			return total, err
		}
		if kind == 'Z' {
			return total, nil
		}
	}
}

// stalling is a reader that pauses at its first megabyte and then 256 MB after each pause.
type stalling struct {
	net.Conn
	pause      time.Duration
	read, next int64
}

func (s *stalling) Read(b []byte) (int, error) {
	if s.pause > 0 && s.read >= s.next {
		time.Sleep(s.pause)
		s.next += 256 << 20
	}
	n, err := s.Conn.Read(b)
	s.read += int64(n)
	return n, err
}

// writeCopy sends rows in messages of some 8 kB, as psql does.
func writeCopy(c net.Conn, rows, width int) (total int64, err error) {
	in, err := beginCopy(c)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(c, bulkBuffer)
	row := "1\t" + strings.Repeat("x", width) + "\n"
	atOnce := max(1, 8192/len(row))
	data := message('d', strings.Repeat(row, atOnce))
	for sent := 0; sent < rows; sent += atOnce {
		n, err := out.Write(data)
		if err != nil {
			return total, err
		}
		total += int64(n)
	}
	return total, endCopy(out, in)
}

// writeRow sends one row.
func writeRow(c net.Conn, width int) (total int64, err error) {
	in, err := beginCopy(c)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(c, bulkBuffer)
	if total, err = writeLarge(out, 'd', "1\t", width, "\n"); err != nil {
		return total, err
	}
	return total, endCopy(out, in)
}

// writeParameter sends a value that the server measures.
func writeParameter(c net.Conn, width int) (total int64, err error) {
	if _, err := c.Write(message('P', "\x00SELECT length($1::text)\x00\x00\x00")); err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(c, bulkBuffer)
	head := binary.BigEndian.AppendUint32([]byte("\x00\x00\x00\x00\x00\x01"), uint32(width)) // unnamed, all text, one value
	if total, err = writeLarge(out, 'B', string(head), width, "\x00\x00"); err != nil {
		return total, err
	}
	if _, err := out.Write(append(message('E', "\x00\x00\x00\x00\x00"), message('S', "")...)); err != nil {
		return total, err
	}
	if err := out.Flush(); err != nil {
		return total, err
	}
	return total, untilReady(bufio.NewReader(c))
}

// writeLarge sends one message with so many bytes between head and tail.
func writeLarge(out *bufio.Writer, kind byte, head string, n int, tail string) (total int64, err error) {
	size := len(head) + n + len(tail)
	if _, err := out.Write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(size+4))); err != nil {
		return 0, err
	}
	if _, err := out.WriteString(head); err != nil {
		return 0, err
	}
	for filler := strings.Repeat("x", bulkBuffer); n > 0; n -= min(n, len(filler)) {
		if _, err := out.WriteString(filler[:min(n, len(filler))]); err != nil {
			return 0, err
		}
	}
	_, err = out.WriteString(tail)
	return int64(size) + 5, err
}

// beginCopy waits until the server takes data. WHERE false has it parse and drop the rows.
func beginCopy(c net.Conn) (*bufio.Reader, error) {
	if _, err := c.Write(message('Q', "COPY bench_copy FROM STDIN WHERE false\x00")); err != nil {
		return nil, err
	}
	in := bufio.NewReader(c)
	kind, size, err := header(in)
	if err != nil {
		return nil, err
	}
	if kind != 'G' {
		return nil, serverError(in, size)
	}
	_, err = in.Discard(size)
	return in, err
}

func endCopy(out *bufio.Writer, in *bufio.Reader) error {
	if _, err := out.Write(message('c', "")); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return untilReady(in)
}

// untilReady skips over the server's messages up to ReadyForQuery.
func untilReady(in *bufio.Reader) error {
	for {
		kind, size, err := header(in)
		if err != nil {
			return err
		}
		if kind == 'E' {
			return serverError(in, size)
		}
		if _, err := in.Discard(size); err != nil {
			return err
		}
		if kind == 'Z' {
			return nil
		}
	}
}

// message is a frame of the protocol: type, length with itself, body.
func message(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

// header reads the type of the next message and the size of its body.
func header(in *bufio.Reader) (kind byte, size int, err error) {
	var h [5]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return 0, 0, err
	}
	return h[0], int(binary.BigEndian.Uint32(h[1:])) - 4, nil
}

// serverError is an ErrorResponse's fields in one line.
func serverError(in io.Reader, size int) error {
	b := make([]byte, min(size, 4096))
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	return fmt.Errorf("server: %s", strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " "))
}
