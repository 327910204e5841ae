package proxy

import (
	"testing"
	"unsafe"
)

// The allocator has classes of sizes: one byte more than 1024 costs each idle client 128.
func TestSessionFitsItsClass(t *testing.T) {
	if n := unsafe.Sizeof(session{}); n > 1024 {
		t.Errorf("a session takes %d bytes, more than 1024", n)
	}
}
