package cqrs

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// exceptions of one view: the events that its offsets have passed but its store does not hold. At most limit are kept
// one by one. What does not fit makes the whole view exceptional from the oldest such mark of its shard on, until the
// list is heard again from the beginning (a restart), since what was not kept cannot be seen to be cleared.
type exceptions struct {
	limit    int
	list     map[origin]Exception
	overflow map[string]lsn.Mark // shard -> the oldest mark that did not fit
	dropped  int
}

type origin struct {
	partition
	offset int64
}

// Exception takes what a projector said about one event.
func (l *Levels) Exception(x Exception) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.except[x.View]
	if s == nil {
		if x.Cleared || len(l.except) >= l.limits.Views && !l.tracked(x.View) {
			return
		}
		s = &exceptions{limit: l.limits.Exceptions, list: map[origin]Exception{}, overflow: map[string]lsn.Mark{}}
		l.except[x.View] = s
	}
	s.take(x)
}

func (s *exceptions) take(x Exception) {
	at := origin{partition{x.Topic, x.Partition}, x.Offset}
	if x.Cleared {
		delete(s.list, at)
		return
	}
	if _, known := s.list[at]; known || len(s.list) < s.limit {
		s.list[at] = x
		return
	}
	s.dropped++
	m, ok := s.overflow[x.Shard]
	if !ok {
		m = x.Mark
	}
	s.overflow[x.Shard] = lsn.Mark{Epoch: min(m.Epoch, x.Mark.Epoch), LSN: min(m.LSN, x.Mark.LSN)}
}

// mayInclude says whether a session with this mark may have seen what an event at the other one did. The epoch alone does not clear a
// read: a proxy does not know it while it takes a mark, and leaves it 0.
func mayInclude(mark, event lsn.Mark) bool { return mark.LSN >= event.LSN || mark.Epoch > event.Epoch }

func (s *exceptions) count() int { return len(s.list) + s.dropped }

// concerns fails when a read of key whose session has seen the mark depends on an event that is missing.
func (s *exceptions) concerns(shard string, mark lsn.Mark, key string) error {
	for _, of := range []string{shard, ""} {
		if m, ok := s.overflow[of]; ok && mayInclude(mark, m) {
			return fmt.Errorf("%d events are missing: %w", s.count(), ErrDeadLettered)
		}
	}
	for at, x := range s.list {
		if (x.Shard == shard || x.Shard == "") && (key == "" || x.Key == "" || x.Key == key) && mayInclude(mark, x.Mark) {
			return fmt.Errorf("key %s, %s/%d offset %d: %w", x.Key, at.topic, at.n, at.offset, ErrDeadLettered)
		}
	}
	return nil
}

// Exceptions lists what is known to be missing from one partition of a view.
func (l *Levels) Exceptions(view ViewID, topic string, n int) []Exception {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Exception
	if s := l.except[view]; s != nil {
		for at, x := range s.list {
			if at.partition == (partition{topic, n}) {
				list = append(list, x)
			}
		}
	}
	return list
}
