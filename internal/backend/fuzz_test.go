package backend

import (
	"bytes"
	"testing"
)

// FuzzStatus: whatever a server says of its state is read, or an error.
func FuzzStatus(f *testing.F) {
	f.Add([]byte("t|16/B374D848|0.5|1|7123456789012345678|180000"))
	f.Add([]byte("f|0/0|NaN|-1|-1|x"))
	f.Add([]byte("t||1e300|99999999999|0|"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		row := bytes.SplitN(b, []byte("|"), 6)
		for len(row) < 6 {
			row = append(row, nil)
		}
		_, _ = parseStatus(row)
	})
}
