package proxy

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// ownSettings are the settings named tidemark.*, which no server knows. They belong to the session, not to transactions.
type ownSettings struct {
	consistency Consistency
	waitTimeout time.Duration
	onTimeout   OnTimeout
	notice      bool
}

func (o *ownSettings) defaults(c *Config) {
	*o = ownSettings{consistency: c.Consistency, waitTimeout: c.WaitTimeout, onTimeout: c.OnTimeout}
}

// ownNames are the settings, in the order of SHOW ALL.
var ownNames = []string{
	"tidemark.consistency", "tidemark.on_timeout", "tidemark.route", "tidemark.route_notice", "tidemark.token", "tidemark.version",
	"tidemark.wait_timeout",
}

func isOwn(name string) bool { return strings.HasPrefix(strings.ToLower(name), "tidemark.") }

func equalFold(a, b string) bool { return strings.EqualFold(a, b) }

// show is a setting's value.
func (o *ownSettings) show(s *session, name string) (string, error) {
	switch name {
	case "tidemark.consistency":
		return string(o.consistency), nil
	case "tidemark.wait_timeout":
		return o.waitTimeout.String(), nil
	case "tidemark.on_timeout":
		return string(o.onTimeout), nil
	case "tidemark.route_notice":
		return onOff(o.notice), nil
	case "tidemark.token":
		return s.token.String(), nil
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
			o.consistency = c
		}
		return err
	case "tidemark.on_timeout":
		t, err := parseOnTimeout(strings.ToLower(value))
		if err == nil {
			o.onTimeout = t
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
	case "tidemark.token":
		t, err := lsn.ParseToken(value)
		if err != nil {
			return wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.token\": %v", err)
		}
		for shard := range t {
			if s.p.backend.Shard(shard) == nil {
				return wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.token\": there is no shard \"%s\"", shard)
			}
		}
		s.know()
		s.token.Merge(t)
		return nil
	case "tidemark.route", "tidemark.version":
		return wire.Errorf(wire.CantChangeRuntimeParam, "parameter \"%s\" cannot be changed", name)
	}
	return errUnknownSetting(name)
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
		o.consistency = d.consistency
	case "tidemark.wait_timeout":
		o.waitTimeout = d.waitTimeout
	case "tidemark.on_timeout":
		o.onTimeout = d.onTimeout
	case "tidemark.route_notice":
		o.notice = d.notice
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

// checkSetting refuses a SET under which SQL could not be read safely, or that is too much, before any server accepts it.
func (s *session) checkSetting(p *router.Plan) error {
	changes := s.several
	if c := p.Setting; c != nil && !c.Own && c.Op != router.ShowOp && c.Op != router.ShowAll {
		changes = nil
		for ; c != nil; c = c.Next {
			changes = append(changes, c)
		}
	}
	if err := s.settings.crowded(changes); err != nil {
		return err
	}
	for _, c := range changes {
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

// reported is a setting of the startup message as the server would report it.
func reported(name, value string) string {
	if name == "client_encoding" {
		switch strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(value)) {
		case "utf8", "unicode":
			return "UTF8"
		}
		return strings.ToUpper(value)
	}
	return value
}
