package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// LoginAs says as whom a client's statements run on the servers.
type LoginAs string

// The ways.
const (
	LoginShared LoginAs = "shared" // the proxy's own role, for all clients
	LoginClient LoginAs = "client" // each client's own
)

// serverIdentity is by what the client's server connections log in; nil for the shared role.
//
//	known of the client                       logs in by
//	its password: stored, or just received    the password
//	SCRAM keys, from its proof                the keys, where the server stores the same verifier
//	anything else                             nothing: refused
func (l *login) serverIdentity() (*backend.Identity, error) {
	if l.live.LoginAs != LoginClient {
		return nil, nil
	}
	id := &backend.Identity{User: l.user}
	switch {
	case l.secret.password != "":
		id.Password = l.secret.password
	case l.password != "":
		id.Password = l.password
	case l.keys != nil:
		id.Keys = l.keys
	default:
		return nil, wire.Errorf(wire.InvalidAuthorizationSpecification, "cannot log in to the server as user \"%s\"", l.user).
			WithDetail("Method %s leaves the proxy nothing to log in with, and the user's stored secret is %v.", l.method, l.secret).
			WithHint("Store the user's password in the clear, or let it come in by scram-sha-256 with the server's own verifier, or by password.")
	}
	return id, nil
}
