package proxy

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// traceOrders are the users whose clients an administrator wants to see, also those that come later. Times are loop.Clock's.
type traceOrders struct {
	mu    sync.Mutex
	until map[string]time.Duration
}

// Bounds of TRACE.
const (
	traceFor    = time.Minute // when nothing else is said
	maxTraceFor = 24 * time.Hour
	maxOrders   = 1000 // users at a time
)

// of is until when a client of the user that begins its session now is traced; 0: nobody has asked.
func (o *traceOrders) of(user string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return int64(o.until[user])
}

// give has a user's coming clients traced until then; not any more when that is 0.
func (o *traceOrders) give(user string, until time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for u, t := range o.until {
		if t < loop.Clock() {
			delete(o.until, u)
		}
	}
	if until == 0 {
		delete(o.until, user)
		return nil
	}
	if o.until == nil {
		o.until = map[string]time.Duration{}
	}
	if _, known := o.until[user]; !known && len(o.until) >= maxOrders {
		return wire.Errorf(wire.ProgramLimitExceeded, "too many users are traced: %d", len(o.until))
	}
	o.until[user] = until
	return nil
}

// traceEnds is tracedUntil for people; the zero time when it has passed.
func (x *client) traceEnds() time.Time {
	left := time.Duration(x.tracedUntil.Load()) - loop.Clock()
	if left <= 0 {
		return time.Time{}
	}
	return time.Now().Add(left)
}

// parseTrace: client ids, or USER and a name, and for how long.
func (a *admin) parseTrace(args []string) (*adminCommand, error) {
	d := traceFor
	if n := len(args); n >= 2 && strings.EqualFold(args[n-2], "for") {
		var err error
		if d, err = time.ParseDuration(args[n-1]); err != nil || d < 0 || d > maxTraceFor {
			return nil, errArguments("TRACE", "takes a time such as '60s', at most "+maxTraceFor.String()+", and "+strconv.Quote(args[n-1])+" is none")
		}
		args = args[:n-2]
	}
	meant, whom, err := clientsMeant("TRACE", args)
	if err != nil {
		return nil, err
	}
	return &adminCommand{name: "TRACE", needs: allRights, run: func(_ context.Context, c *console, _ func([][]byte) error) (string, error) {
		if a.p.cfg().Tracing == nil {
			return "", wire.Errorf(wire.ObjectNotInPrerequisiteState, "there is nowhere to send traces").
				WithHint("Give tracing.endpoint in the configuration, and RELOAD.")
		}
		until := time.Duration(0)
		if d > 0 {
			until = loop.Clock() + d
		}
		a.p.log.Info("console command", "command", "TRACE", "whom", whom, "for", d, "user", c.user)
		if user, ok := strings.CutPrefix(whom, "user "); ok {
			if err := a.p.traces.give(user, until); err != nil {
				return "", err
			}
		}
		n := 0
		for _, x := range slices.DeleteFunc(a.p.clients.all(), func(x *client) bool { return !meant(x) }) {
			x.tracedUntil.Store(int64(until))
			n++
		}
		if n == 0 && !strings.HasPrefix(whom, "user ") {
			return "", errNoClient(whom)
		}
		return "TRACE " + strconv.Itoa(n), nil
	}}, nil
}
