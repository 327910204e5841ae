package sharding

import (
	"errors"
	"fmt"
)

// Format is how a value is written, with the numbers of the wire protocol.
type Format int16

// The formats.
const (
	TextFormat   Format = 0
	BinaryFormat Format = 1
)

// ErrValue is wrapped by errors about a value that PostgreSQL itself would refuse for its type. The message is PostgreSQL's.
var ErrValue = errors.New("invalid key value")

// ErrUnsupportedValue is wrapped by errors about a value that PostgreSQL may accept but that this package refuses to interpret.
var ErrUnsupportedValue = errors.New("unsupported key value")

// Hash is PostgreSQL's hash of a partition key of one column of type t. value is not NULL; it is in PostgreSQL's text or
// binary format and is read as the type's input or receive function would read it.
func Hash(t KeyType, value []byte, format Format) (uint64, error) {
	return 0, fmt.Errorf("%w: %s", ErrUnsupportedValue, t)
}
