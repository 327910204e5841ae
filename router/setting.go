package router

import (
	"fmt"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

func (s *statement) setting() *compiled {
	set := s.f.Setting
	c := &SettingChange{Name: set.Name, Values: set.Values, Local: set.Local, Own: own(set.Name)}
	p := &Plan{Kind: Setting, Setting: c, Shards: s.r.oneShard[s.r.m.Default()]}
	switch set.Op {
	case sql.SetTo:
		c.Op, p.Tag = SetOp, "SET"
		if c.seeds() {
			p.Flags |= Keeps
		}
	case sql.Reset:
		c.Op, p.Tag = ResetOp, "RESET"
		if set.ToDefault {
			p.Tag = "SET" // SET x TO DEFAULT
		}
	case sql.ResetAll:
		c.Op, p.Tag = ResetAll, "RESET"
	case sql.ShowOne:
		c.Op, p.Tag = ShowOp, "SHOW"
	case sql.ShowAll:
		c.Op, p.Tag = ShowAll, "SHOW"
	}
	return s.fixedPlan(p)
}

func (s *statement) setConfigs() *compiled {
	local := true
	for _, set := range s.f.SetConfigs {
		local = local && set.LocalParam == 0 && set.Local
	}
	for _, call := range s.f.Functions {
		if f, _ := s.r.function(s.ses, call); !local && call.Name != "set_config" && (f.User || f.Schema != "pg_catalog" && !call.Keyword || makesRows[call.Name]) {
			return s.fixed(refuse(fmt.Sprintf("set_config together with %s() is not supported", call.Name), "Whether the setting is made may depend on the rows that the function returns, or on what it does.",
				"Use two statements."))
		}
	}
	o := s.query()
	if o.unkeyed.Kind != AnyShard && o.unkeyed.Kind != Route {
		return s.compiled(o)
	}
	p := *o.unkeyed
	p.Flags = p.Flags&^Neutral | Dirty | Here
	p.Shards, p.Reason = s.r.oneShard[s.r.m.Default()], "a setting of the session"
	var params []*sql.Setting
	p.Setting, params = settingChanges(s.f.SetConfigs)
	for change := p.Setting; change != nil; change = change.Next {
		if change.Own {
			return s.fixed(ownByFunction(change.Name))
		}
		if change.seeds() {
			p.Flags |= Keeps
		}
	}
	c := s.fixedPlan(&p)
	if params != nil {
		c.always, c.settings = nil, params
	}
	return c
}

// makesRows are functions of PostgreSQL's own that return a set, which may be empty: then nothing beside them is computed.
var makesRows = set("generate_series", "generate_subscripts", "unnest", "regexp_matches", "regexp_split_to_table", "string_to_table",
	"json_array_elements", "json_array_elements_text", "jsonb_array_elements", "jsonb_array_elements_text", "json_each", "jsonb_each",
	"json_each_text", "jsonb_each_text", "json_object_keys", "jsonb_object_keys", "jsonb_path_query", "jsonb_path_query_tz",
	"json_populate_recordset", "jsonb_populate_recordset", "json_to_recordset", "jsonb_to_recordset", "pg_options_to_table", "aclexplode", "_pg_expandarray")

// settingChanges are the changes that calls of set_config make, and the calls again if values are missing in some.
func settingChanges(calls []*sql.Setting) (first *SettingChange, params []*sql.Setting) {
	next := &first
	for _, set := range calls {
		*next = &SettingChange{Name: set.Name, Values: set.Values, Local: set.Local, Function: true, Own: own(set.Name)}
		if set.Op == sql.Reset {
			(*next).Op = ResetOp
		}
		next = &(*next).Next
		if set.Param > 0 || set.NameParam > 0 || set.LocalParam > 0 {
			params = calls
		}
	}
	return first, params
}

// bindSettings fills the parameters into calls of set_config; NULL as the value is the default.
func (c *compiled) bindSettings(src *source) *Plan {
	p := *c.generic
	p.Setting, _ = settingChanges(c.settings)
	change := p.Setting
	for _, set := range c.settings {
		for _, n := range []int{set.Param, set.NameParam, set.LocalParam} {
			if n > len(src.values) {
				return c.generic
			}
			if n > 0 && n <= len(src.unknown) && src.unknown[n-1] {
				p.Kind, p.Setting = Refuse, nil
				p.Refusal = refuse("set_config with a computed argument is not supported", "The session's settings must be known to carry them from one server connection to the next.", "Give the arguments as constants.")
				return &p
			}
		}
		if n := set.Param; n > 0 {
			if v := src.values[n-1]; v == nil {
				change.Op, change.Values = ResetOp, nil
			} else {
				change.Values = []string{string(v)}
			}
		}
		if n := set.NameParam; n > 0 {
			change.Name = strings.ToLower(string(src.values[n-1]))
			change.Own = own(change.Name)
		}
		if n := set.LocalParam; n > 0 {
			change.Local = isTrue(src.values[n-1])
		}
		if change.Own {
			p.Kind, p.Setting, p.Refusal = Refuse, nil, ownByFunction(change.Name)
			return &p
		}
		if change.seeds() {
			p.Flags |= Keeps
		}
		change = change.Next
	}
	return &p
}

// isTrue reads a boolean in either format; what is none fails on the server.
func isTrue(v []byte) bool {
	switch s := strings.ToLower(strings.TrimSpace(string(v))); s {
	case "\x01", "1", "on":
		return true
	default:
		return s != "" && (strings.HasPrefix("true", s) || strings.HasPrefix("yes", s))
	}
}

func ownByFunction(name string) *Refusal {
	return refuse(fmt.Sprintf("set_config of %s is not supported", name), "It is a setting of Tidemark's own, and servers, which run the function, do not know it.", "Use SET.")
}

func own(setting string) bool { return strings.HasPrefix(setting, "tidemark.") }
