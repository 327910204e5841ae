package cqrs

import (
	"fmt"
	"slices"
	"sort"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Lag is how far one view is behind one shard, for people.
type Lag struct {
	View       ViewID
	Shard      string
	Level      lsn.Mark // zero: not known
	Published  lsn.Mark // the last progress of the shard
	Events     int64    // records of the view's topics that were published and are not applied; counted for all shards
	Exceptions int      // events of the view in the dead-letter queue
}

// Lags lists the lag of every tracked view behind every shard that feeds it, in order of their names.
func (l *Levels) Lags() []Lag {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends := map[partition]int64{}
	for _, s := range l.shards {
		if last := s.last(); last != nil {
			for topic, e := range last.Ends {
				for n, end := range e {
					ends[partition{topic, n}] = max(ends[partition{topic, n}], end)
				}
			}
		}
	}
	var lags []Lag
	for _, v := range l.views {
		var behind int64
		for p, end := range ends {
			for _, t := range v.Topics {
				if t == p.topic {
					behind += max(0, end-l.stores[v.ViewID][p])
				}
			}
		}
		for name, s := range l.shards {
			if v.Shards != nil && !slices.Contains(v.Shards, name) {
				continue
			}
			lag := Lag{View: v.ViewID, Shard: name, Level: v.levels[name], Events: behind}
			if last := s.last(); last != nil {
				lag.Published = last.Mark
			}
			if x := l.except[v.ViewID]; x != nil {
				lag.Exceptions = x.count()
			}
			lags = append(lags, lag)
		}
	}
	sort.Slice(lags, func(i, j int) bool {
		a, b := &lags[i], &lags[j]
		if a.View.Name != b.View.Name {
			return a.View.Name < b.View.Name
		}
		return a.Shard < b.Shard
	})
	return lags
}

func (g Lag) String() string {
	return fmt.Sprintf("%s %s: level %d:%s of %d:%s, %d events behind", g.View, g.Shard,
		g.Level.Epoch, g.Level.LSN, g.Published.Epoch, g.Published.LSN, g.Events)
}
