package proxy

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// ownSettings are the settings named tidemark.*, which no server knows. They belong to the session, not to transactions.
type ownSettings struct {
	waitTimeout time.Duration
	traceparent string // of what the session does from now on; empty: none
	onTimeout   uint8  // which of onTimeouts
	eventual    bool   // tidemark.consistency; else it is session
	notice      bool
}

func (o *ownSettings) defaults(c *Config) {
	*o = ownSettings{eventual: c.Consistency == Eventual, waitTimeout: c.WaitTimeout, onTimeout: numberOf(c.OnTimeout)}
}

// onTimeouts are the values of tidemark.on_timeout; a session keeps a number.
var onTimeouts = []OnTimeout{OnTimeoutPrimary, OnTimeoutStale, OnTimeoutError}

func numberOf(t OnTimeout) uint8 { return uint8(slices.Index(onTimeouts, t)) }

// ownNames are the settings, in the order of SHOW ALL.
var ownNames = []string{
	"tidemark.consistency", "tidemark.on_timeout", "tidemark.route", "tidemark.route_notice", "tidemark.token", "tidemark.traceparent",
	"tidemark.version", "tidemark.wait_timeout",
}

func isOwn(name string) bool { return strings.HasPrefix(strings.ToLower(name), "tidemark.") }

// show is a setting's value.
func (o *ownSettings) show(s *session, name string) (string, error) {
	switch name {
	case "tidemark.consistency":
		if o.eventual {
			return string(Eventual), nil
		}
		return string(Session), nil
	case "tidemark.wait_timeout":
		return o.waitTimeout.String(), nil
	case "tidemark.on_timeout":
		return string(onTimeouts[o.onTimeout]), nil
	case "tidemark.route_notice":
		return onOff(o.notice), nil
	case "tidemark.token":
		return s.token.String(), nil
	case "tidemark.traceparent":
		return o.traceparent, nil
	case "tidemark.route":
		return s.last.String(), nil
	case "tidemark.version":
		return s.p.version, nil
	}
	return "", errUnknownSetting(name)
}

// set changes a setting.
func (o *ownSettings) set(s *session, name, value string) error {
	switch strings.ToLower(name) {
	case "tidemark.consistency":
		c, err := parseConsistency(strings.ToLower(value))
		if err == nil {
			o.eventual = c == Eventual
		}
		return err
	case "tidemark.on_timeout":
		t, err := parseOnTimeout(strings.ToLower(value))
		if err == nil {
			o.onTimeout = numberOf(t)
		}
		return err
	case "tidemark.wait_timeout":
		d, err := parseDuration(value)
		if err == nil {
			o.waitTimeout = d
		}
		return err
	case "tidemark.route_notice":
		o.notice = boolean(strings.ToLower(value))
		return nil
	case "tidemark.traceparent":
		if value != "" && !validParent(value) {
			return wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.traceparent\": %q", value).
				WithHint("It is version, trace id, span id and flags as in the traceparent header of W3C Trace Context: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.")
		}
		o.traceparent = value
		return nil
	case "tidemark.token":
		t, err := s.parseToken(value)
		if err != nil {
			return err
		}
		s.know()
		s.token.Merge(t)
		return nil
	case "tidemark.route", "tidemark.version":
		return wire.Errorf(wire.CantChangeRuntimeParam, "parameter \"%s\" cannot be changed", name)
	}
	return errUnknownSetting(name)
}

// check says whether a SET, RESET or SHOW will succeed.
func (o *ownSettings) check(s *session, c *router.SettingChange) error {
	tried := *o
	switch {
	case c.Local:
		return wire.Errorf(wire.FeatureNotSupported, "SET LOCAL %s is not supported", c.Name).
			WithDetail("Tidemark's own settings belong to the session, not to transactions.").WithHint("Use SET, and RESET behind the transaction.")
	case c.Op == router.ResetAll || c.Op == router.ShowAll:
		return wire.Errorf(wire.FeatureNotSupported, "this form of SHOW is not supported").WithHint("Show one setting by its name.")
	case c.Op == router.SetOp && c.Name == "tidemark.token":
		_, err := s.parseToken(c.Value())
		return err
	case c.Op == router.SetOp:
		return tried.set(s, c.Name, c.Value())
	}
	if c.Op == router.ResetOp && (c.Name == "tidemark.route" || c.Name == "tidemark.version") {
		return errUnknownSetting(c.Name)
	}
	_, err := o.show(s, c.Name)
	return err
}

func (s *session) parseToken(value string) (lsn.Token, error) {
	t, err := lsn.ParseToken(value)
	if err != nil {
		return nil, wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.token\": %v", err)
	}
	for shard := range t {
		if s.p.backend.Shard(shard) == nil {
			return nil, wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.token\": there is no shard \"%s\"", shard)
		}
	}
	return t, nil
}

// reset gives a setting its default again; an empty name resets all. The token stays: forgetting it would let reads go
// backwards.
func (o *ownSettings) reset(s *session, name string) error {
	var d ownSettings
	d.defaults(s.p.cfg())
	switch name {
	case "":
		*o = d
	case "tidemark.consistency":
		o.eventual = d.eventual
	case "tidemark.wait_timeout":
		o.waitTimeout = d.waitTimeout
	case "tidemark.on_timeout":
		o.onTimeout = d.onTimeout
	case "tidemark.route_notice":
		o.notice = d.notice
	case "tidemark.traceparent":
		o.traceparent = ""
	case "tidemark.token":
		clear(s.token)
	default:
		return errUnknownSetting(name)
	}
	return nil
}

func errUnknownSetting(name string) *wire.Error {
	return wire.Errorf(wire.UndefinedObject, "unrecognized configuration parameter \"%s\"", name).
		WithHint("Tidemark's own are %s.", strings.Join(ownNames, ", "))
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// maxWait bounds what a session may ask for.
const maxWait = time.Hour

// parseDuration takes "250ms", "5s", or a bare number of milliseconds, as PostgreSQL's timeouts do.
func parseDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.ReplaceAll(v, " ", ""))
	if err != nil {
		n, nerr := strconv.Atoi(strings.TrimSpace(v))
		if nerr != nil {
			return 0, wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.wait_timeout\": \"%s\"", v).
				WithHint(`Valid units are "us", "ms", "s", "m" and "h"; a bare number is milliseconds.`)
		}
		d = time.Duration(n) * time.Millisecond
	}
	if d < 0 || d > maxWait {
		return 0, wire.Errorf(wire.InvalidParameterValue, "%s is outside the valid range for parameter \"tidemark.wait_timeout\" (0 to %s)", v, maxWait)
	}
	return d, nil
}

// checkLastValue refuses currval() and lastval() where the connection that the sequence gave its number on may be another's by now.
func (s *session) checkLastValue(p *router.Plan) error {
	if !p.Has(router.LastValue) || s.mode == backend.Session || s.tx.state != txNone || s.batch.sent || len(s.pins) > 0 {
		return nil
	}
	return wire.Errorf(wire.FeatureNotSupported, "currval() and lastval() are not supported outside of a transaction").
		WithDetail("They tell what a sequence gave last on the same server connection, and connections are shared between transactions.").
		WithHint("Use INSERT ... RETURNING, or BEGIN before the statement that draws the number, or session mode for this user.")
}

// checkSetting refuses a SET under which SQL could not be read safely, or that is too much, before any server accepts it.
func (s *session) checkSetting(p *router.Plan) error {
	var changes []*router.SettingChange
	if s.strung != nil {
		changes = s.strung.changes
	}
	if c := p.Setting; c != nil && !c.Own && alters(c) {
		changes = nil
		for ; c != nil; c = c.Next {
			changes = append(changes, c)
		}
	}
	if err := s.settings.crowded(changes); err != nil {
		return err
	}
	for _, c := range changes {
		if err := s.checkEncoding(c); err != nil {
			return err
		}
		if _, err := s.viewWith(c); err != nil {
			var r *router.Refusal
			if errors.As(err, &r) {
				return refusal(r)
			}
			return err
		}
	}
	return nil
}
