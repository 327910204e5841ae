// Package lsn has the positions that Tidemark reasons with: a position in one shard's WAL, the version of a row,
// the mark that a commit leaves, and the token, a vector of marks that one session can hand to another.
package lsn

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in the write-ahead log of one PostgreSQL cluster (pg_lsn). Zero is "nowhere".
type LSN uint64

// Parse reads PostgreSQL's own form, "16/B374D848".
func Parse(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("lsn %q: want two hexadecimal numbers with a slash between, such as 16/B374D848", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("lsn %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("lsn %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Sizes of WAL pages and segments, and of the headers that begin them (xlog_internal.h: SizeOfXLogShortPHD, SizeOfXLogLongPHD).
const (
	pageSize          = 8192
	shortPageHeader   = 24
	longPageHeader    = 40
	defaultSegmentLen = 16 << 20
)

// RecordEnd turns what pg_current_wal_insert_lsn() returned into the end of the last record. At a page boundary the
// insert position already lies behind the next page's header, where no replica's replay position arrives until
// something else is written. segment is wal_segment_size in bytes; 0 means 16 MB.
func RecordEnd(insert LSN, segment uint64) LSN {
	if segment == 0 {
		segment = defaultSegmentLen
	}
	switch {
	case uint64(insert)%segment == longPageHeader:
		return insert - longPageHeader
	case uint64(insert)%pageSize == shortPageHeader:
		return insert - shortPageHeader
	}
	return insert
}

// Epoch counts the histories of one shard: failover, restore, new slot, moved bucket. At most MaxEpoch.
type Epoch uint16

// MaxEpoch is the largest epoch that fits into a Version.
const MaxEpoch Epoch = 1<<12 - 1

const lsnBits = 51

// Version orders the states of one row: (epoch, commit LSN), packed as epoch(12) << 51 | lsn >> 3, so that it is a
// positive int64 in Elasticsearch. Commit records are 8-byte aligned, so the shift loses nothing.
type Version uint64

// Pack makes a version; it refuses positions and epochs that do not fit rather than wrap.
func Pack(e Epoch, l LSN) (Version, error) {
	if e > MaxEpoch {
		return 0, fmt.Errorf("epoch %d does not fit into a version (at most %d)", e, MaxEpoch)
	}
	if l>>3 >= 1<<lsnBits {
		return 0, fmt.Errorf("lsn %s does not fit into a version", l)
	}
	return Version(uint64(e)<<lsnBits | uint64(l)>>3), nil
}

// Epoch and LSN take a version apart; the LSN's three lowest bits are zero.
func (v Version) Epoch() Epoch { return Epoch(v >> lsnBits) }
func (v Version) LSN() LSN     { return LSN(v&(1<<lsnBits-1)) << 3 }

// Digits is the version as 19 zero-padded decimal digits, which compare as strings as the numbers do (Lua's numbers
// are doubles and would round it).
func (v Version) Digits() string { return fmt.Sprintf("%019d", uint64(v)) }
