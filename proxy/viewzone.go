package proxy

import (
	"regexp"
	"strings"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// timestamptzOID is pg_type.oid of timestamp with time zone.
const timestamptzOID = 1184

// utc are the names under which PostgreSQL knows UTC.
var utc = map[string]bool{
	"utc": true, "etc/utc": true, "gmt": true, "etc/gmt": true, "z": true, "zulu": true, "etc/zulu": true, "uct": true, "etc/uct": true,
	"universal": true, "etc/universal": true, "greenwich": true, "etc/greenwich": true, "0": true,
}

// zone is a literal's own time zone, behind a time of day.
var zone = regexp.MustCompile(`(?i):.*(z|utc|gmt|[+-]\d\d?(:?\d\d){0,2})$`)

// checkZones refuses comparisons whose literal means another moment here than in PostgreSQL: read models take a moment
// without a zone as UTC, PostgreSQL as of the session's TimeZone.
func (s *session) checkZones(v cqrs.View, where []cqrs.Predicate) error {
	set, ok := s.settings.value("timezone")
	if !ok {
		if p := s.p.serverZone.Load(); p != nil {
			set = *p
		}
	}
	if set == "" || utc[strings.ToLower(set)] {
		return nil
	}
	for _, w := range where {
		for _, c := range v.Columns() {
			if c.Name != w.Column || c.OID != timestamptzOID {
				continue
			}
			for _, literal := range w.Values {
				if !unzoned(literal) {
					continue
				}
				return wire.Errorf(wire.FeatureNotSupported, "read model %q cannot compare %q with %q: the time zone is missing", v.Name(), c.Name, literal).
					WithDetail("The session's TimeZone is %s; read models compare in UTC.", set).
					WithHint("Write the zone, as in '2026-01-31 12:00:00+00', or SET TimeZone TO 'UTC'.")
			}
		}
	}
	return nil
}

// unzoned says whether a literal's moment depends on the session's time zone.
func unzoned(literal string) bool {
	literal = strings.TrimSpace(literal)
	switch strings.ToLower(literal) {
	case "infinity", "+infinity", "-infinity", "epoch":
		return false
	}
	return !zone.MatchString(literal)
}
