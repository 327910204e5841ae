package backend

import (
	"bytes"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Identity is who a session is to the servers: whose pools it takes connections from, and how these log in. A nil
// *Identity is the shared role of Config, with the pools that all such sessions share. An Identity does not change once it
// is in use, and many sessions may share one. A pointer to one prints as its
// user's name, whatever the verb.
type Identity struct {
	User     string
	Password string           // empty with Keys, or where the server asks for none
	Keys     *wire.ClientKeys // log in by SCRAM keys instead of a password

	// Shared: connections log in as the shared role, but the pools are this user's own, with limits of their own.
	Shared bool

	// order says which of two identities of one user is newer: see Backend.Admit. Atomic; 0: not admitted.
	order uint64
}

// String is the user's name.
func (id *Identity) String() string { return id.User }

// Format covers every verb, also those that do not ask String.
func (id *Identity) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(id.User)) } // a fmt.State keeps its own errors

// LogValue implements slog.LogValuer.
func (id *Identity) LogValue() slog.Value { return slog.StringValue(id.User) }

// Admit notes that a client has just proven to be id, as when it logged in to the proxy. When a user's password has
// changed, the credentials admitted last are those that the user's pools open connections with. Calling it again for the
// same Identity changes nothing. A nil id is allowed.
func (b *Backend) Admit(id *Identity) {
	if id != nil {
		b.orderOf(id)
	}
}

func (b *Backend) orderOf(id *Identity) uint64 {
	if n := atomic.LoadUint64(&id.order); n != 0 {
		return n
	}
	atomic.CompareAndSwapUint64(&id.order, 0, b.admitted.Add(1))
	return atomic.LoadUint64(&id.order)
}

// same says whether two identities of one user log in by the same credentials. How long it takes tells a client nothing:
// it sees neither of them.
func (id *Identity) same(other *Identity) bool {
	switch {
	case id.Password != other.Password, (id.Keys == nil) != (other.Keys == nil):
		return false
	case id.Keys == nil:
		return true
	}
	return bytes.Equal(id.Keys.ClientKey, other.Keys.ClientKey) && bytes.Equal(id.Keys.ServerKey, other.Keys.ServerKey)
}
