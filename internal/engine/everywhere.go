package engine

import (
	"errors"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Ask sends one query of the proxy's own to a link and waits for its end. Nothing of it reaches the client but what mute
// leaves.
func (r *Relay) Ask(l *Link, sql string, mute Mute) (Reply, error) {
	return r.askWith(l, sql, mute, Reply{})
}

// askWith is Ask with a reply that says what the client gets of it all the same.
func (r *Relay) askWith(l *Link, sql string, mute Mute, reply Reply) (Reply, error) {
	l.SetOut(wire.AppendQuery(l.Out(), sql))
	l.Expect(Expect{Kind: Query, Mute: mute, Reply: &reply})
	if err := r.Await(l); err != nil {
		return reply, err
	}
	l.Until = loop.Clock()
	if l.Err != nil {
		return reply, l.Err
	}
	if reply.Err != nil {
		return reply, reply.Err
	}
	return reply, nil
}

// Everywhere runs so many statements, in one text, on every link inside a transaction on each, and commits when all have
// succeeded. The client gets what the first says, up to the last one's tag, which is returned. It goes from link to link in their order, so that two such statements never wait for each
// other's locks in a circle.
//
// A failure before the first COMMIT leaves nothing behind. One between two COMMITs is told as what it is.
func (r *Relay) Everywhere(links []*Link, sql string, statements int) (tag string, err error) {
	for i, l := range links {
		if _, err := r.Ask(l, "BEGIN", MuteAll); err != nil {
			return "", err
		}
		reply, err := r.askWith(l, sql, onlyRows(i), ofFirst(i, statements))
		if err != nil {
			return "", err
		}
		if i == 0 {
			tag = reply.Tag
		}
	}
	return tag, r.CommitAll(links)
}

// InTurn runs a statement on every link outside of transactions, for those that PostgreSQL does not allow in one. When it
// fails, what ran before stays; the error says where.
func (r *Relay) InTurn(links []*Link, sql string) (tag string, err error) {
	for i, l := range links {
		reply, err := r.askWith(l, sql, onlyRows(i), ofFirst(i, 1))
		if err != nil {
			return "", partly(err, "It has run on", links[:i])
		}
		if i == 0 {
			tag = reply.Tag
		}
	}
	return tag, nil
}

// onlyRows lets the client have the rows of the first of several links.
func onlyRows(i int) Mute {
	if i == 0 {
		return MuteAll &^ (MuteDesc | MuteRows)
	}
	return MuteAll
}

// ofFirst lets the client have, of the first of several links, the tags of all statements but the last, and notices.
func ofFirst(i, statements int) Reply {
	if i == 0 {
		return Reply{PassTags: uint32(statements - 1), PassNotices: true}
	}
	return Reply{}
}

// CommitAll commits the transactions that are open on the links.
func (r *Relay) CommitAll(links []*Link) error {
	for i, l := range links {
		reply, err := r.Ask(l, "COMMIT", MuteAll)
		if err == nil && reply.Tag != "COMMIT" {
			err = wire.Errorf(wire.TransactionRollback, "shard %s rolled the transaction back", l.Shard)
		}
		if err != nil {
			return partly(err, "It is committed on", links[:i])
		}
	}
	return nil
}

// partly adds to an error on which shards the statement has taken effect all the same.
func partly(err error, what string, done []*Link) error {
	var told *wire.Error
	if len(done) == 0 || !errors.As(err, &told) {
		return err
	}
	names := make([]string, len(done))
	for i, l := range done {
		names[i] = l.Shard
	}
	e := *told
	e.Detail = strings.TrimSpace(e.Detail + " " + what + " " + strings.Join(names, ", ") + " and not on the shards after.")
	return &e
}
