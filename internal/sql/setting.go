package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// settingName is how pg_settings spells a setting.
func settingName(name string) string {
	switch n := Lower(name); n {
	case "time zone":
		return "timezone"
	case "session authorization":
		return "session_authorization"
	case "transaction isolation level":
		return "transaction_isolation"
	default:
		return n
	}
}

func (b *builder) set(s *pg.VariableSetStmt) {
	b.f.Command = Set
	set := &Setting{Name: settingName(s.Name), Local: s.IsLocal}
	switch s.Kind {
	case pg.VariableSetKind_VAR_SET_VALUE:
		for _, a := range s.Args {
			v, ok := b.literalText(a)
			if c := a.GetTypeCast(); c != nil {
				v, ok = b.zoneInterval(c)
			}
			if !ok {
				b.unusual("SET %s to a value that is neither a word, a number nor a string is not supported", set.Name)
			}
			set.Values = append(set.Values, v)
		}
	case pg.VariableSetKind_VAR_SET_DEFAULT, pg.VariableSetKind_VAR_RESET:
		set.Op, set.ToDefault = Reset, s.Kind == pg.VariableSetKind_VAR_SET_DEFAULT
	case pg.VariableSetKind_VAR_RESET_ALL:
		set.Op = ResetAll
		set.Name = ""
	case pg.VariableSetKind_VAR_SET_MULTI:
		b.multi(s, set)
		return
	default:
		b.unusual("SET %s FROM CURRENT is not supported outside of CREATE FUNCTION", set.Name)
	}
	b.f.Setting = set
}

// zoneInterval is the value that SET TIME ZONE INTERVAL gives the setting, as a string that means the same to PostgreSQL, which takes no
// fields there: a text that they would cut is left out.
func (b *builder) zoneInterval(c *pg.TypeCast) (string, bool) {
	text, ok := b.literalText(c.Arg)
	if !ok {
		return "", false
	}
	const hour, minute = 1 << 10, 1 << 11 // INTERVAL_MASK(HOUR), INTERVAL_MASK(MINUTE)
	fields := int32(0)
	if m := c.TypeName.Typmods; len(m) > 0 {
		fields = m[0].GetAConst().GetIval().GetIval()
	}
	switch number := strings.TrimLeft(text, "+-"); {
	case fields == 0 && !strings.ContainsAny(text, `'\`):
	case fields == hour|minute && hoursAndMinutes(number):
	case fields == hour && oneOrTwoDigits(number):
		text += " hours"
	case fields&minute != 0 && oneOrTwoDigits(number):
		text += " minutes"
	default:
		return "", false
	}
	return "INTERVAL '" + text + "'", true
}

// hoursAndMinutes says whether s is like 5:30 or 05:30.
func hoursAndMinutes(s string) bool {
	h, m, ok := strings.Cut(s, ":")
	return ok && oneOrTwoDigits(h) && oneOrTwoDigits(m)
}

// oneOrTwoDigits says whether s is a number of one or two digits.
func oneOrTwoDigits(s string) bool {
	return s != "" && len(s) <= 2 && strings.Trim(s, "0123456789") == ""
}

// multi reads SET TRANSACTION and SET SESSION CHARACTERISTICS.
func (b *builder) multi(s *pg.VariableSetStmt, set *Setting) {
	t := &Tx{Op: SetTransaction}
	b.modes(t, s.Args)
	switch s.Name {
	case "TRANSACTION":
		b.f.Command, b.f.Tx = Transaction, t
	case "SESSION CHARACTERISTICS":
		onOff := map[bool]string{true: "on", false: "off"}
		switch {
		case len(s.Args) != 1:
			b.unusual("SET SESSION CHARACTERISTICS with several modes at once is not supported")
		case t.ReadOnly != nil:
			set.Name, set.Values = "default_transaction_read_only", []string{onOff[*t.ReadOnly]}
		case t.Deferrable != nil:
			set.Name, set.Values = "default_transaction_deferrable", []string{onOff[*t.Deferrable]}
		default:
			set.Name, set.Values = "default_transaction_isolation", []string{t.Isolation}
		}
		b.f.Setting = set
	case "TRANSACTION SNAPSHOT":
		b.f.Command = SetSnapshot
		b.oneServer("SET %s is not supported", s.Name)
	default:
		b.unusual("SET %s is not supported", s.Name)
	}
}

// setConfigs finds the calls of set_config(name, value, local) in the target list of a SELECT that makes one row, where each runs
// once and with arguments that are constants or parameters. None when any other call of it is there.
func (b *builder) setConfigs(s *pg.SelectStmt) {
	if len(s.FromClause) > 0 || s.WhereClause != nil || s.HavingClause != nil || len(s.GroupClause) > 0 ||
		s.LimitCount != nil || s.LimitOffset != nil || len(b.f.Blocks) != 1 {
		return
	}
	calls := 0
	for i := range b.f.Functions {
		if b.f.Functions[i].Name == "set_config" {
			calls++
		}
	}
	if calls == 0 {
		return
	}
	var found []*Setting
	for _, t := range s.TargetList {
		if set := b.setConfig(t.GetResTarget().GetVal()); set != nil {
			found = append(found, set)
		}
	}
	if len(found) == calls {
		b.f.SetConfigs = found
	}
}

// setConfig reads a call of set_config, perhaps under casts; nil when it is none, or its arguments are not known.
func (b *builder) setConfig(n *pg.Node) *Setting {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	c := n.GetFuncCall()
	if c == nil || len(c.Args) != 3 {
		return nil
	}
	names := strs(c.Funcname)
	if names[len(names)-1] != "set_config" || len(names) == 2 && names[0] != "pg_catalog" {
		return nil
	}
	set := &Setting{Function: true}
	name, param, ok := b.textArgument(c.Args[0])
	if !ok {
		return nil
	}
	set.Name, set.NameParam = settingName(name), param
	switch local, v := c.Args[2].GetAConst(), b.value(c.Args[2], 0); {
	case v.Kind == Param && (v.Cast == "" || v.Cast == "bool"):
		set.LocalParam = v.Param
	case local != nil:
		if _, ok := local.Val.(*pg.A_Const_Boolval); !ok {
			return nil
		}
		set.Local = local.GetBoolval().GetBoolval()
	default:
		return nil
	}
	if b.value(c.Args[1], 0).Kind == Null {
		set.Op = Reset
		return set
	}
	value, param, ok := b.textArgument(c.Args[1])
	if !ok {
		return nil
	}
	if set.Param = param; param == 0 {
		set.Values = []string{value}
	}
	return set
}

// textArgument reads an argument of type text: a constant, or a parameter by its number.
func (b *builder) textArgument(n *pg.Node) (text string, param int, ok bool) {
	v := b.value(n, 0)
	if v.Cast != "" && v.Cast != "text" {
		return "", 0, false
	}
	if v.Kind == Param {
		return "", v.Param, true
	}
	if v.Cast != "" {
		n = n.GetTypeCast().GetArg()
	}
	text, ok = b.literalText(n)
	return text, 0, ok
}
