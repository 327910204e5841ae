package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// probeSQL reads the position behind a commit. Not the write or flush position: under synchronous_commit = off they lie
// before it.
const probeSQL = "SELECT pg_catalog.pg_current_wal_insert_lsn()"

// marksMatter says whether anybody could use a mark: with neither replicas nor read models nothing is ever behind.
func (s *session) marksMatter() bool { return s.p.copies && !s.own.eventual }

// sendProbe asks for the mark behind what was sent before, in the same round trip.
func (s *session) sendProbe(l *engine.Link) {
	s.after.active, s.after.mark = true, true
	s.queryUnseen(l, probeSQL, &s.after.probe)
}

// marked takes the probe's answer, a DataRow's body or nil, into the session's token and tells the client.
func (s *session) marked(shard string, row []byte) {
	columns := wire.DataRow(row)
	if row == nil || !columns.Next() {
		s.doubt(shard)
		return
	}
	at, err := lsn.Parse(string(columns.Value()))
	if err != nil {
		s.log().Warn("mark not understood", "shard", shard, "error", err)
		s.doubt(shard)
		return
	}
	delete(s.unsure, shard)
	s.know()
	s.token.Add(shard, lsn.Mark{LSN: lsn.RecordEnd(at, 0)})
	s.SetOut(wire.AppendParameterStatus(s.Out(), "tidemark.token", s.token.String()))
}

// ascertain takes the marks that are missing, before something is read that may be behind: a connection that was lost
// after a write leaves the session without one.
func (s *session) ascertain() error {
	for shard := range s.unsure {
		l, err := s.connect(shard, backend.Write)
		if err != nil {
			return err
		}
		s.useUnlessPinned(l)
		reply, err := s.Ask(l, probeSQL, engine.MuteAll)
		s.giveBack([]*engine.Link{l})
		if err != nil {
			return err
		}
		s.marked(shard, reply.Row)
	}
	return nil
}

// know makes room for the first mark: a session that has none keeps no map.
func (s *session) know() {
	if s.token == nil {
		s.token = lsn.Token{}
	}
}
