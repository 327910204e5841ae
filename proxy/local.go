package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// discardsHere says whether the plan is a DISCARD or DEALLOCATE that concerns only what the proxy keeps: no server
// connection belongs to the session now, and none has to be found for what is held.
func discardsHere(s *session, p *router.Plan) bool {
	return p.Has(router.Discards) && s.link == nil && len(s.batch.held) == 0 && len(s.pins) == 0 && s.tx.state == txNone
}

// local runs a plan that the proxy answers itself, without ReadyForQuery. bound is the Bind message in the extended
// protocol, where the row description has been asked for separately; nil in the simple protocol.
func (s *session) local(p *router.Plan, bound *wire.Bind) error {
	switch {
	case p.Kind == router.Nothing:
		s.SetOut(wire.AppendEmptyQueryResponse(s.Out()))
		return nil
	case p.Kind == router.Setting:
		return s.setOwn(p, bound)
	case p.Kind == router.ViewScan:
		s.notice()
		return s.scanView(p, bound)
	}
	// DISCARD ALL, DEALLOCATE ALL
	s.forgetAll()
	if p.Command == sql.Discard {
		s.discard()
		s.tellBeginning()
	}
	s.SetOut(wire.AppendCommandComplete(s.Out(), p.Tag))
	return nil
}

// discard gives all settings of the session the values that it began with: DISCARD ALL.
func (s *session) discard() {
	s.settings.discard()
	s.own.defaults(s.p.cfg())
	if s.ear != nil {
		s.ear.said = s.ear.said[:0] // by a batch that goes on
		s.ear.end(false)
		clear(s.ear.on)
		s.ear.ahead = true
	}
	s.refreshView()
}

// discardOn is discard behind a DISCARD ALL that the link's server has run, and gives the settings of the startup message there anew. A cancel
// request may hit that, so they do not count as made.
func (s *session) discardOn(l *engine.Link) {
	s.discard()
	if l.Conn.Settings = 0; s.settings.print != 0 {
		s.queryUnseen(l, s.settings.syncSQL(), nil)
		l.Conn.Settings = settingsUnknown
	}
}

// setOwn runs SET, RESET or SHOW of a tidemark setting.
func (s *session) setOwn(p *router.Plan, bound *wire.Bind) error {
	c := p.Setting
	if err := s.own.check(s, c); err != nil {
		return err
	}
	switch c.Op {
	case router.SetOp:
		if err := s.own.set(s, c.Name, c.Value()); err != nil {
			return err
		}
		s.SetOut(wire.AppendCommandComplete(s.Out(), p.Tag))
	case router.ResetOp:
		if err := s.own.reset(s, c.Name); err != nil {
			return err
		}
		s.SetOut(wire.AppendCommandComplete(s.Out(), p.Tag))
	case router.ShowOp:
		value, err := s.own.show(s, c.Name)
		if err != nil {
			return err
		}
		if bound == nil {
			s.SetOut(s.appendFields(s.Out(), p, nil))
		}
		s.SetOut(wire.AppendDataRow(s.Out(), []byte(value)))
		s.SetOut(wire.AppendCommandComplete(s.Out(), "SHOW"))
	case router.ResetAll, router.ShowAll: // see check
	}
	return nil
}

// appendFields describes the rows of a plan that the proxy answers itself: RowDescription or NoData.
func (s *session) appendFields(dst []byte, p *router.Plan, bound *wire.Bind) []byte {
	switch {
	case p.Kind == router.Setting && p.Setting.Own && p.Setting.Op == router.ShowOp:
		return wire.AppendRowDescription(dst, []wire.Field{{Name: []byte(p.Setting.Name), TypeOID: textOID, TypeLen: -1, TypeMod: -1}})
	case p.Kind == router.ViewScan:
		fields := make([]wire.Field, len(p.Scan.Columns))
		for i, c := range p.Scan.Columns {
			fields[i] = wire.Field{Name: []byte(c.Name), TypeOID: c.OID, TypeLen: typeLen(c.OID), TypeMod: c.TypeMod}
			if bound != nil {
				fields[i].Format = bound.ResultFormat(i)
			}
		}
		return wire.AppendRowDescription(dst, fields)
	}
	return wire.AppendNoData(dst)
}

const textOID = 25

// typeLen is pg_type.typlen of the types with a fixed length; -1 for the others.
func typeLen(oid uint32) int16 {
	switch oid {
	case 16, 18: // bool, "char"
		return 1
	case 21: // int2
		return 2
	case 23, 26, 700, 1082: // int4, oid, float4, date
		return 4
	case 20, 701, 1083, 1114, 1184, 790: // int8, float8, time, timestamp, timestamptz, money
		return 8
	case 1266: // timetz
		return 12
	case 1186, 2950: // interval, uuid
		return 16
	}
	return -1
}
