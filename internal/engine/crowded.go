package engine

// maxOwed bounds the replies that a link owes before its client is held up. It is more than a server keeps back on its own:
// PostgreSQL sends what it has when 8 kB have come together, and the least reply takes 5 bytes.
const maxOwed = 4096

// Crowded says that the client's next request should wait: more than a client that reads would leave waits for its socket,
// for a server's, or for its answer. PostgreSQL, too, stops reading when it cannot write.
func (r *Relay) Crowded() bool { return r.crowd(maxPending, maxOwed) }

// Thinned says that the crowd has gone, so that a client is not held up again at once.
func (r *Relay) Thinned() bool { return !r.crowd(maxPending/2, maxOwed/2) }

func (r *Relay) crowd(bytes, replies int) bool {
	if len(r.out)-r.sent > bytes {
		return true
	}
	for _, l := range r.links {
		if l.Err == nil && (l.Owed() > replies || len(l.out)-l.sent > bytes) {
			return true
		}
	}
	return false
}
