package replication

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// A spool keeps the messages of one open transaction until its fate is known. Nothing is decoded before: streamed
// transactions abort in part or in whole, and one effect per key needs the end of the transaction.
//
// A record is: length of the message (4 bytes, big-endian), the (sub)transaction it belongs to (4), its kind (1), the message.
// Records start in memory; when all open transactions together hold more than the limit, the largest moves to a file.

const recordHeader = 9

type record struct {
	xid  uint32
	kind byte
	body []byte
}

type spool struct {
	xid     uint32
	rows    int // records that are row changes or truncates: an upper bound until aborted parts are known
	mem     []byte
	file    *os.File            // records before mem, nil while there are none
	onDisk  int64               // bytes in file
	aborted map[uint32]struct{} // subtransactions that rolled back
}

// spools holds the open transactions of one stream: at most one that arrives whole, any number of streamed ones.
type spools struct {
	dir   string
	limit int
	used  int // bytes of mem over all open transactions
	open  map[uint32]*spool
}

func newSpools(dir string, limit int) *spools {
	return &spools{dir: dir, limit: limit, open: map[uint32]*spool{}}
}

// begin returns the spool of a transaction, a new one if it is not open.
func (s *spools) begin(xid uint32) *spool {
	sp := s.open[xid]
	if sp == nil {
		sp = &spool{xid: xid}
		s.open[xid] = sp
	}
	return sp
}

// add appends a message, copying it.
func (s *spools) add(sp *spool, xid uint32, kind byte, body []byte) error {
	if sp.mem == nil {
		sp.mem = make([]byte, 0, recordHeader+len(body)+64)
	}
	sp.mem = binary.BigEndian.AppendUint32(sp.mem, uint32(len(body)))
	sp.mem = binary.BigEndian.AppendUint32(sp.mem, xid)
	sp.mem = append(sp.mem, kind)
	sp.mem = append(sp.mem, body...)
	switch kind {
	case msgInsert, msgUpdate, msgDelete, msgTruncate:
		sp.rows++
	}
	s.used += recordHeader + len(body)
	for s.used > s.limit {
		if err := s.spill(); err != nil {
			return err
		}
	}
	return nil
}

// spill moves the largest open transaction to its file.
func (s *spools) spill() error {
	var big *spool
	for _, sp := range s.open {
		if big == nil || len(sp.mem) > len(big.mem) {
			big = sp
		}
	}
	if big.file == nil {
		f, err := os.CreateTemp(s.dir, "tidemark-tx-*")
		if err != nil {
			return fmt.Errorf("spill transaction %d: %w", big.xid, err)
		}
		// Without a name it is gone when the process is, however that ends.
		if err := os.Remove(f.Name()); err != nil {
			return errors.Join(fmt.Errorf("spill transaction %d: %w", big.xid, err), f.Close())
		}
		big.file = f
	}
	n, err := big.file.Write(big.mem)
	big.onDisk += int64(n)
	if err != nil {
		return fmt.Errorf("spill transaction %d: %w", big.xid, err)
	}
	s.used -= len(big.mem)
	big.mem = big.mem[:0]
	return nil
}

// take removes a transaction that has ended; the caller closes it.
func (s *spools) take(xid uint32) *spool {
	sp := s.open[xid]
	if sp != nil {
		delete(s.open, xid)
		s.used -= len(sp.mem)
	}
	return sp
}

// abort forgets a transaction, or marks a part of it as rolled back.
func (s *spools) abort(xid, sub uint32) error {
	if xid == sub {
		if sp := s.take(xid); sp != nil {
			return sp.close()
		}
		return nil
	}
	if sp := s.open[xid]; sp != nil {
		if sp.aborted == nil {
			sp.aborted = map[uint32]struct{}{}
		}
		sp.aborted[sub] = struct{}{}
	}
	return nil
}

func (s *spools) close() error {
	var errs []error
	for xid := range s.open {
		errs = append(errs, s.take(xid).close())
	}
	return errors.Join(errs...)
}

func (sp *spool) close() error {
	if sp.file == nil {
		return nil
	}
	if err := sp.file.Close(); err != nil {
		return fmt.Errorf("close spilled transaction %d: %w", sp.xid, err)
	}
	return nil
}

// records calls each for every record that was not rolled back. Bodies of records in memory stay valid for ever, those read
// from the file lie in the buffer that alloc returned for them.
func (sp *spool) records(alloc func(n int) []byte, each func(record) error) error {
	if sp.file != nil {
		in := bufio.NewReaderSize(io.NewSectionReader(sp.file, 0, sp.onDisk), 256<<10)
		var head [recordHeader]byte
		for {
			if _, err := io.ReadFull(in, head[:]); err == io.EOF {
				break
			} else if err != nil {
				return fmt.Errorf("read spilled transaction %d: %w", sp.xid, err)
			}
			n := int(binary.BigEndian.Uint32(head[:]))
			rec := record{xid: binary.BigEndian.Uint32(head[4:]), kind: head[8]}
			if _, gone := sp.aborted[rec.xid]; gone {
				if _, err := in.Discard(n); err != nil {
					return fmt.Errorf("read spilled transaction %d: %w", sp.xid, err)
				}
				continue
			}
			rec.body = alloc(n)
			if _, err := io.ReadFull(in, rec.body); err != nil {
				return fmt.Errorf("read spilled transaction %d: %w", sp.xid, err)
			}
			if err := each(rec); err != nil {
				return err
			}
		}
	}
	for b := sp.mem; len(b) > 0; {
		n := int(binary.BigEndian.Uint32(b))
		rec := record{xid: binary.BigEndian.Uint32(b[4:]), kind: b[8], body: b[recordHeader : recordHeader+n : recordHeader+n]}
		b = b[recordHeader+n:]
		if _, gone := sp.aborted[rec.xid]; gone {
			continue
		}
		if err := each(rec); err != nil {
			return err
		}
	}
	return nil
}
