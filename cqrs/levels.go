package cqrs

import (
	"sort"
	"sync"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Levels knows how far every view has come. It is fed with what capture published (Progress) and what projectors
// applied (Applied, Exception), in the order of their topics, and answers with the greatest mark of a shard whose
// events a view has all applied. It is pure: no clock, no bus; Follow feeds it from one. Safe for concurrent use.
//
// The invariant: Level(view, shard) = m promises that every event of the shard whose commit is not beyond m, in a topic
// of the view, is in the view's store or listed as an Exception. Forgetting progress only makes levels arrive later;
// forgetting an exception is never done (beyond the bound the view as a whole becomes exceptional).
type Levels struct {
	mu     sync.Mutex
	limits LevelLimits
	shards map[string]*shardProgress
	views  map[string]*viewLevel          // what Track registered, by name
	stores map[ViewID]map[partition]int64 // applied offsets of every generation heard of
	except map[ViewID]*exceptions
	waits  int
}

// LevelLimits bound what Levels remembers.
type LevelLimits struct {
	Progress   int // progress records per shard; older ones are thinned out. Default 4096
	Exceptions int // exceptions per view. Default 1024
	Waiters    int // sessions that wait at the same time. Default 100,000
	Views      int // generations heard of, whether tracked or not. Default 1024
}

// Defaults of LevelLimits.
const (
	DefaultProgressLimit  = 4096
	DefaultExceptionLimit = 1024
	DefaultWaiterLimit    = 100_000
	DefaultViewLimit      = 1024
)

// Tracked is a view whose level is wanted.
type Tracked struct {
	ViewID
	Topics []string
	// Shards that feed the view. Marks of other shards ask nothing of it. Nil: every shard.
	Shards []string
}

type partition struct {
	topic string
	n     int
}

// shardProgress is the published history of one shard: records with growing marks and growing ends.
type shardProgress struct {
	records []Progress
}

type viewLevel struct {
	Tracked
	levels  map[string]lsn.Mark // by shard
	waiters map[*waiter]struct{}
}

// NewLevels makes an empty Levels. Zero limits become their defaults.
func NewLevels(limits LevelLimits) *Levels {
	set := func(v *int, to int) {
		if *v <= 0 {
			*v = to
		}
	}
	set(&limits.Progress, DefaultProgressLimit)
	set(&limits.Exceptions, DefaultExceptionLimit)
	set(&limits.Waiters, DefaultWaiterLimit)
	set(&limits.Views, DefaultViewLimit)
	return &Levels{
		limits: limits,
		shards: map[string]*shardProgress{},
		views:  map[string]*viewLevel{},
		stores: map[ViewID]map[partition]int64{},
		except: map[ViewID]*exceptions{},
	}
}

// Track registers a view, or replaces the generation that serves it. The level of a new generation begins with what
// that generation has applied.
func (l *Levels) Track(t Tracked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.views[t.Name]
	if v == nil {
		v = &viewLevel{waiters: map[*waiter]struct{}{}}
		l.views[t.Name] = v
	}
	v.Tracked, v.levels = t, map[string]lsn.Mark{}
	for shard := range l.shards {
		l.advance(v, shard)
	}
}

// Level returns how far a view has come with one shard. It is not known (false) before the view and the shard have been
// heard of.
func (l *Levels) Level(view, shard string) (lsn.Mark, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.views[view]
	if v == nil {
		return lsn.Mark{}, false
	}
	m, ok := v.levels[shard]
	return m, ok
}

// Progress takes what capture said. Marks that are not beyond the last one are passed over: after a restart capture
// publishes again from the position that was confirmed, and an owner that lost the shard may speak once more; what is
// already known still holds.
func (l *Levels) Progress(p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shards[p.Shard]
	if s == nil {
		s = &shardProgress{}
		l.shards[p.Shard] = s
	}
	if last := s.last(); last != nil {
		if !last.Mark.Less(p.Mark) {
			return
		}
		if topic, back := wentBack(last.Ends, p.Ends); back {
			l.recreated(topic, p.Ends[topic])
		}
	}
	s.records = append(s.records, p)
	if len(s.records) > l.limits.Progress {
		l.thin(p.Shard, s)
	}
	for _, v := range l.views {
		l.advance(v, p.Shard)
	}
}

func (s *shardProgress) last() *Progress {
	if n := len(s.records); n > 0 {
		return &s.records[n-1]
	}
	return nil
}

// wentBack finds a topic with a partition that ends before where it ended: only a topic that was created again does.
func wentBack(old, now map[string][]int64) (string, bool) {
	for topic, ends := range now {
		was := old[topic]
		for i := range min(len(was), len(ends)) {
			if ends[i] < was[i] {
				return topic, true
			}
		}
	}
	return "", false
}

// recreated forgets what was said about a topic's former life: all progress, for it names offsets of that life, and
// every applied offset beyond the new ends, which cannot mean the new life. The projectors say Reset for the rest when
// they find their committed offsets gone, as Kafka deletes those with the topic.
func (l *Levels) recreated(topic string, ends []int64) {
	for _, s := range l.shards {
		s.records = nil
	}
	for _, store := range l.stores {
		for p, offset := range store {
			if p.topic == topic && p.n < len(ends) && offset > ends[p.n] {
				delete(store, p)
			}
		}
	}
	for _, v := range l.views {
		for _, t := range v.Topics {
			if t == topic {
				v.levels = map[string]lsn.Mark{}
			}
		}
	}
}

// thin halves the older half of the records. A level then jumps over what is left out, later than it could, but the
// newest records stay dense, which is where sessions wait.
func (l *Levels) thin(shard string, s *shardProgress) {
	// What every tracked view has passed is needed no more, but the last of it: a view tracked later begins there.
	passed := len(s.records) - 1
	for _, v := range l.views {
		passed = min(passed, s.after(v.levels[shard])-1)
	}
	if passed > len(s.records)/4 {
		s.records = append([]Progress(nil), s.records[passed:]...)
		return
	}
	kept := make([]Progress, 0, l.limits.Progress)
	half := len(s.records) / 2
	for i := range s.records {
		if i >= half || i%2 == 0 {
			kept = append(kept, s.records[i])
		}
	}
	s.records = kept
}

// after is the index of the first record whose mark is beyond m.
func (s *shardProgress) after(m lsn.Mark) int {
	return sort.Search(len(s.records), func(i int) bool { return m.Less(s.records[i].Mark) })
}

// Applied takes what a projector said about one partition. Without Reset an offset never goes back: a partition that
// moved to another worker is read again from its committed offset, but what the store holds it still holds.
func (l *Levels) Applied(a Applied) {
	l.mu.Lock()
	defer l.mu.Unlock()
	store := l.stores[a.View]
	if store == nil {
		if len(l.stores) >= l.limits.Views && !l.tracked(a.View) {
			return // its level stays unknown
		}
		store = map[partition]int64{}
		l.stores[a.View] = store
	}
	p := partition{a.Topic, a.Partition}
	old, known := store[p]
	switch {
	case a.Reset:
		store[p] = a.Offset
		if v := l.views[a.View.Name]; known && a.Offset < old && v != nil && v.ViewID == a.View {
			v.levels = map[string]lsn.Mark{}
		}
	case a.Offset <= old && known:
		return
	default:
		store[p] = a.Offset
	}
	if v := l.views[a.View.Name]; v != nil && v.ViewID == a.View {
		for shard := range l.shards {
			l.advance(v, shard)
		}
	}
}

func (l *Levels) tracked(id ViewID) bool {
	v := l.views[id.Name]
	return v != nil && v.ViewID == id
}

// advance moves the level of one view and shard to the last record whose offsets are all covered, and wakes those who
// waited for it. Ends grow with marks, so the search stops at the first record that is not covered.
func (l *Levels) advance(v *viewLevel, shard string) {
	s := l.shards[shard]
	store := l.stores[v.ViewID]
	level, known := v.levels[shard]
	next := 0
	if known {
		next = s.after(level)
	}
	moved := false
	for ; next < len(s.records) && covered(v.Topics, s.records[next].Ends, store); next++ {
		level, moved = s.records[next].Mark, true
	}
	if !moved {
		return
	}
	v.levels[shard] = level
	for w := range v.waiters {
		if w.shard == shard && w.mark.ReachedBy(level) {
			w.wake()
		}
	}
}

func covered(topics []string, ends map[string][]int64, store map[partition]int64) bool {
	for _, topic := range topics {
		for n, end := range ends[topic] {
			if end > 0 && store[partition{topic, n}] < end {
				return false
			}
		}
	}
	return true
}

// Forget drops everything that was fed: the system topics were created again.
func (l *Levels) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shards = map[string]*shardProgress{}
	l.stores = map[ViewID]map[partition]int64{}
	l.except = map[ViewID]*exceptions{}
	for _, v := range l.views {
		v.levels = map[string]lsn.Mark{}
	}
}
