package replication

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// A walsender is a replication connection (PostgreSQL manual, "Streaming Replication Protocol"). Commands run through pgconn;
// when the stream starts the socket is taken over, so that one goroutine can read while another confirms positions, and so
// that a message costs no copy.
type walsender struct {
	cfg  *Config
	conn *pgconn.PgConn // until start
	nc   net.Conn       // from start on
	in   *bufio.Reader
	body []byte // of the last message read

	stopped atomic.Bool // see interrupt
}

const readBuffer = 64 << 10

func openWalsender(ctx context.Context, cfg *Config) (*walsender, error) {
	cc, err := cfg.connConfig("walsender", map[string]string{
		"replication":        "database",
		"search_path":        printPath,
		"wal_sender_timeout": fmt.Sprint(cfg.SenderTimeout.Milliseconds()),
		// What the server holds of one open transaction before it streams it; it counts more bytes than we do.
		"logical_decoding_work_mem": fmt.Sprint(max(64, cfg.TxMemory>>10)),
	})
	if err != nil {
		return nil, err
	}
	conn, err := pgconn.ConnectConfig(ctx, &cc.Config)
	if err != nil {
		return nil, fmt.Errorf("connect to shard %s for replication: %w", cfg.Shard, err)
	}
	return &walsender{cfg: cfg, conn: conn}, nil
}

func (w *walsender) close() {
	if w.nc != nil {
		_ = w.nc.Close() // what matters was confirmed before
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
}

// command runs a replication command that returns one row.
func (w *walsender) command(ctx context.Context, sql string) (map[string]string, error) {
	results, err := w.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, fmt.Errorf("%w: %s did not return one row", ErrProtocol, sql)
	}
	row := map[string]string{}
	for i, f := range results[0].FieldDescriptions {
		row[f.Name] = string(results[0].Rows[0][i])
	}
	return row, nil
}

// createSlot creates the slot and exports the snapshot of its consistent point, which lasts until the next command.
func (w *walsender) createSlot(ctx context.Context, version int) (at lsn.LSN, snapshot string, err error) {
	options := "SNAPSHOT 'export'"
	if w.cfg.Failover && version >= 170000 {
		options += ", FAILOVER true"
	}
	row, err := w.command(ctx, fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput (%s)", w.cfg.Slot, options))
	if err != nil {
		return 0, "", fmt.Errorf("create slot %s: %w", w.cfg.Slot, err)
	}
	if at, err = lsn.Parse(row["consistent_point"]); err != nil {
		return 0, "", fmt.Errorf("create slot %s: %w", w.cfg.Slot, err)
	}
	return at, row["snapshot_name"], nil
}

// identify returns the server's timeline and how far its WAL is flushed.
func (w *walsender) identify(ctx context.Context) (timeline string, flushed lsn.LSN, err error) {
	row, err := w.command(ctx, "IDENTIFY_SYSTEM")
	if err != nil {
		return "", 0, fmt.Errorf("identify the server: %w", err)
	}
	flushed, err = lsn.Parse(row["xlogpos"])
	return row["timeline"], flushed, err
}

// start begins to stream from the slot's confirmed position, and takes over the socket.
func (w *walsender) start(ctx context.Context) error {
	if err := w.conn.SyncConn(ctx); err != nil {
		return err
	}
	h, err := w.conn.Hijack()
	if err != nil {
		return err
	}
	w.nc, w.in = h.Conn, bufio.NewReaderSize(h.Conn, readBuffer)
	sql := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '2', publication_names %s, messages 'true', streaming 'on')",
		w.cfg.Slot, quoteLiteral(`"`+strings.ReplaceAll(w.cfg.Publication, `"`, `""`)+`"`))
	frame, err := (&pgproto3.Query{String: sql}).Encode(nil)
	if err != nil {
		return err
	}
	if err := w.write(frame); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	for {
		kind, body, err := w.read()
		if err != nil {
			return fmt.Errorf("start replication: %w", err)
		}
		switch kind {
		case 'W':
			return nil
		case 'E':
			return fmt.Errorf("start replication from slot %s: %w", w.cfg.Slot, serverError(body))
		}
	}
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func serverError(body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return err
	}
	return pgconn.ErrorResponseToPgError(&m)
}

// read returns the next frame. Its body is valid until the next call.
func (w *walsender) read() (kind byte, body []byte, err error) {
	if err := w.await(5); err != nil {
		return 0, nil, err
	}
	head, err := w.in.Peek(5)
	if err != nil {
		return 0, nil, err
	}
	kind = head[0]
	n := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if n < 0 || n > maxFrame {
		return 0, nil, fmt.Errorf("%w: frame %q of %d bytes", ErrProtocol, kind, n)
	}
	if _, err := w.in.Discard(5); err != nil {
		return 0, nil, err
	}
	// Grown by what arrives, not by what the length promises; given back after a large value.
	const step = 1 << 20
	if cap(w.body) > 4*step && n < step {
		w.body = nil
	}
	w.body = w.body[:0]
	for rest := int(n); rest > 0; {
		k := min(rest, step)
		w.body = slices.Grow(w.body, k)
		start := len(w.body)
		w.body = w.body[:start+k]
		if err := w.await(k); err != nil {
			return 0, nil, err
		}
		if _, err := io.ReadFull(w.in, w.body[start:]); err != nil {
			return 0, nil, err
		}
		rest -= k
	}
	return kind, w.body, nil
}

// await sets the deadline of a read of n bytes, if it will have to wait at all.
func (w *walsender) await(n int) error {
	if w.in.Buffered() >= n {
		return nil
	}
	if err := w.nc.SetReadDeadline(time.Now().Add(w.cfg.ServerTimeout)); err != nil {
		return err
	}
	if w.stopped.Load() { // checked last, so that interrupt's deadline cannot get lost
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (w *walsender) write(frame []byte) error {
	if err := w.nc.SetWriteDeadline(time.Now().Add(w.cfg.ServerTimeout)); err != nil {
		return err
	}
	_, err := w.nc.Write(frame)
	return err
}

// errStreamEnded is the server's orderly end of the stream: it shuts down.
var errStreamEnded = errors.New("the server ended the stream")

// copyData is one message of the stream: WAL data (kind 'w') or a keepalive ('k').
type copyData struct {
	kind    byte
	walEnd  lsn.LSN // keepalive: everything that commits before it has been sent
	reply   bool    // keepalive: the server wants to hear from us now
	payload []byte  // WAL data: a pgoutput message
}

// next returns the next message of the stream, valid until the next call.
func (w *walsender) next() (copyData, error) {
	for {
		kind, body, err := w.read()
		if err != nil {
			return copyData{}, err
		}
		switch kind {
		case 'd':
			r := reader{b: body}
			m := copyData{kind: r.byte()}
			switch m.kind {
			case 'w':
				r.uint64() // where the message's WAL starts
				r.uint64() // the same again: logical walsenders know no end here
				r.uint64() // the server's clock
				m.payload = r.b
				if len(m.payload) == 0 {
					r.short = true
				}
			case 'k':
				m.walEnd = r.lsn()
				r.uint64()
				m.reply = r.byte() != 0
			default:
				return m, fmt.Errorf("%w: copy data of kind %q", ErrProtocol, m.kind)
			}
			return m, r.err(m.kind)
		case 'E':
			return copyData{}, serverError(body)
		case 'c', 'C', 'Z':
			return copyData{}, errStreamEnded
		}
		// NoticeResponse, ParameterStatus
	}
}

// confirm tells the server that everything up to l is durable. The written position is the same on purpose: as long as it lies
// behind what was sent, the server sends a keepalive whenever it has caught up, and these carry the level forward.
func (w *walsender) confirm(l lsn.LSN, now time.Time, reply bool) error {
	var f [5 + 34]byte
	f[0] = 'd'
	binary.BigEndian.PutUint32(f[1:], 4+34)
	f[5] = 'r'
	for i := range 3 { // written, flushed, applied
		binary.BigEndian.PutUint64(f[6+8*i:], uint64(l))
	}
	binary.BigEndian.PutUint64(f[30:], uint64(now.Sub(pgEpoch).Microseconds()))
	if reply {
		f[38] = 1
	}
	return w.write(f[:])
}

// interrupt makes a read that is under way, and every later one, fail at once. Any goroutine may call it.
func (w *walsender) interrupt() {
	w.stopped.Store(true)
	_ = w.nc.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
}

// leave confirms a position, says goodbye and waits a moment until the server has closed, and so has freed the slot.
func (w *walsender) leave(l lsn.LSN) error {
	if err := w.confirm(l, time.Now(), false); err != nil {
		return err
	}
	if err := w.write([]byte{'X', 0, 0, 0, 4}); err != nil {
		return err
	}
	if err := w.nc.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	// An interrupted read may have left the input in the middle of a frame: only its end matters now.
	if _, err := io.Copy(io.Discard, w.nc); err != nil {
		return fmt.Errorf("end the stream: %w", err)
	}
	return nil
}
