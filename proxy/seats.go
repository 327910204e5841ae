package proxy

import (
	"sync"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// seats count the clients of each user, also where no limit is set: a reload may set one.
type seats struct {
	mu    sync.Mutex // guards taken
	taken map[string]int
}

// take seats one more client of a user; limit 0 is none. It comes behind the login, so that only who knows the user's secret
// can learn that its seats are taken, or take them.
func (s *seats) take(user string, limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit > 0 && s.taken[user] >= limit {
		return wire.Errorf(wire.TooManyConnections, "too many connections for user %q", user).
			WithHint("At most %d clients of this user may be connected; raise its max_clients under users.", limit)
	}
	if s.taken == nil {
		s.taken = map[string]int{}
	}
	s.taken[user]++
	return nil
}

// leave gives a seat back that was taken.
func (s *seats) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[user]--; s.taken[user] == 0 {
		delete(s.taken, user)
	}
}
