package sharding

import (
	"encoding/binary"
	"math/bits"
)

// seed is HASH_PARTITION_SEED of partitioning code (src/include/catalog/partition.h).
const seed = 0x7A5B22367996DCFD

// combine is what hash_combine64 (src/include/common/hashfn.h) does to the initial 0 and the only column's hash: it adds this constant.
const combine = 0x49a0f4dd15e5a8e3

// The functions below follow hash_bytes_extended and hash_bytes_uint32_extended of src/common/hashfn.c (Bob Jenkins'
// lookup3), on a little-endian machine. A cluster of big-endian servers would place rows differently; PostgreSQL says
// the same about its own partitions.

const initial = 0x9e3779b9 + 3923095

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	a -= c
	a ^= bits.RotateLeft32(c, 4)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 6)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 8)
	b += a
	a -= c
	a ^= bits.RotateLeft32(c, 16)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 19)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

func final(a, b, c uint32) uint64 {
	c ^= b
	c -= bits.RotateLeft32(b, 14)
	a ^= c
	a -= bits.RotateLeft32(c, 11)
	b ^= a
	b -= bits.RotateLeft32(a, 25)
	c ^= b
	c -= bits.RotateLeft32(b, 16)
	a ^= c
	a -= bits.RotateLeft32(c, 4)
	b ^= a
	b -= bits.RotateLeft32(a, 14)
	c ^= b
	c -= bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}

func start(size int) (a, b, c uint32) {
	v := uint32(initial) + uint32(size)
	return mix(v+seed>>32, v+seed&0xffffffff, v)
}

// hashBytes is hash_any_extended with the partition seed.
func hashBytes(k []byte) uint64 {
	a, b, c := start(len(k))
	for len(k) >= 12 {
		a, b, c = mix(a+binary.LittleEndian.Uint32(k), b+binary.LittleEndian.Uint32(k[4:]), c+binary.LittleEndian.Uint32(k[8:]))
		k = k[12:]
	}
	// The lowest byte of c is reserved for the length.
	for i, x := range k {
		switch {
		case i < 4:
			a += uint32(x) << (8 * i)
		case i < 8:
			b += uint32(x) << (8 * (i - 4))
		default:
			c += uint32(x) << (8 * (i - 7))
		}
	}
	return final(a, b, c)
}

// hashUint32 is hash_uint32_extended with the partition seed.
func hashUint32(k uint32) uint64 {
	a, b, c := start(4)
	return final(a+k, b, c)
}

// hashInt is hashint8extended. It folds the halves so that equal integers of all three widths hash alike.
func hashInt(v int64) uint64 {
	lo, hi := uint32(v), uint32(uint64(v)>>32)
	if v < 0 {
		hi = ^hi
	}
	return hashUint32(lo ^ hi)
}
