package sql

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// top reads a whole statement.
func (b *builder) top(n *pg.Node) {
	f := b.f
	switch e := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		f.Command = Select
		b.query(n, -1, false, nil)
		b.setConfigs(e.SelectStmt)
	case *pg.Node_InsertStmt:
		f.Command = Insert
		b.query(n, -1, false, nil)
	case *pg.Node_UpdateStmt:
		f.Command = Update
		b.query(n, -1, false, nil)
	case *pg.Node_DeleteStmt:
		f.Command = Delete
		b.query(n, -1, false, nil)
	case *pg.Node_MergeStmt:
		f.Command = Merge
		b.query(n, -1, false, nil)
	case *pg.Node_TransactionStmt:
		b.transaction(e.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		b.set(e.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		f.Command = Show
		f.Setting = &Setting{Op: ShowOne, Name: settingName(e.VariableShowStmt.Name)}
		if f.Setting.Name == "all" {
			f.Setting = &Setting{Op: ShowAll}
		}
	case *pg.Node_CopyStmt:
		b.copy(e.CopyStmt)
	case *pg.Node_ExplainStmt:
		b.inner(Explain, e.ExplainStmt.Query)
		for _, o := range e.ExplainStmt.Options {
			if d := o.GetDefElem(); d.GetDefname() == "analyze" {
				f.Analyzes = b.boolean(d.GetArg())
				if d.GetArg().GetInteger() != nil || d.GetArg().GetString_() != nil {
					b.allStructural() // the option's value may be a literal, and has no position
				}
			}
		}
	case *pg.Node_PrepareStmt:
		b.inner(Prepare, e.PrepareStmt.Query)
		f.Name = e.PrepareStmt.Name
		for _, t := range e.PrepareStmt.Argtypes {
			f.Types = append(f.Types, typeName(t.GetTypeName()))
		}
	case *pg.Node_ExecuteStmt:
		f.Command = Execute
		b.execute(e.ExecuteStmt)
	case *pg.Node_DeallocateStmt:
		f.Command, f.Name = Deallocate, e.DeallocateStmt.Name
		if e.DeallocateStmt.Name == "" {
			f.Flags |= AllOfIt
		}
	case *pg.Node_DeclareCursorStmt:
		const hold = 0x0020 // CURSOR_OPT_HOLD of parsenodes.h
		b.inner(Declare, e.DeclareCursorStmt.Query)
		f.Name = e.DeclareCursorStmt.Portalname
		if e.DeclareCursorStmt.Options&hold != 0 {
			f.Flags |= WithHold
		}
	case *pg.Node_FetchStmt:
		f.Command, f.Name = Fetch, e.FetchStmt.Portalname
	case *pg.Node_ClosePortalStmt:
		f.Command, f.Name = ClosePortal, e.ClosePortalStmt.Portalname
		if f.Name == "" {
			f.Flags |= AllOfIt
		}
	case *pg.Node_CreateTableAsStmt:
		b.inner(CreateTableAs, e.CreateTableAsStmt.Query)
		f.Flags |= SchemaChange
		b.utilityRelation(e.CreateTableAsStmt.Into.GetRel())
		b.temporary(e.CreateTableAsStmt.Into.GetRel())
		if e.CreateTableAsStmt.Objtype == pg.ObjectType_OBJECT_MATVIEW {
			f.Flags |= Materialize
		}
	case *pg.Node_RefreshMatViewStmt:
		f.Command = DDL
		b.utilityRelation(e.RefreshMatViewStmt.Relation)
		f.Flags |= Materialize
	case *pg.Node_DiscardStmt:
		f.Command = Discard
		if e.DiscardStmt.Target == pg.DiscardMode_DISCARD_ALL {
			f.Flags |= AllOfIt
		}
	case *pg.Node_ListenStmt:
		f.Command, f.Name = Listen, e.ListenStmt.Conditionname
	case *pg.Node_NotifyStmt:
		f.Command, f.Name = Notify, e.NotifyStmt.Conditionname
	case *pg.Node_UnlistenStmt:
		f.Command, f.Name = Unlisten, e.UnlistenStmt.Conditionname
	case *pg.Node_LockStmt:
		f.Command = Lock
		b.relations(e.LockStmt.Relations)
	case *pg.Node_CallStmt:
		f.Command = Call
		b.expr(&pg.Node{Node: &pg.Node_FuncCall{FuncCall: e.CallStmt.Funccall}}, scope{block: b.block(-1, false)})
	case *pg.Node_DoStmt:
		f.Command = Do
		for _, a := range e.DoStmt.Args {
			if d := a.GetDefElem(); d.GetDefname() == "as" {
				f.Code = d.GetArg().GetString_().GetSval()
			}
		}
		b.allStructural()
	case *pg.Node_ConstraintsSetStmt:
		f.Command = SetConstraints
	case *pg.Node_LoadStmt:
		f.Command = Load
	case *pg.Node_TruncateStmt:
		f.Command = Truncate
		b.relations(e.TruncateStmt.Relations)
	case *pg.Node_VacuumStmt:
		f.Command = Utility
		for _, r := range e.VacuumStmt.Rels {
			b.utilityRelation(r.GetVacuumRelation().GetRelation())
		}
		if e.VacuumStmt.IsVacuumcmd {
			f.Flags |= NoTxBlock
		}
	case *pg.Node_ClusterStmt:
		f.Command = Utility
		b.utilityRelation(e.ClusterStmt.Relation)
		if e.ClusterStmt.Relation == nil {
			f.Flags |= NoTxBlock
		}
	case *pg.Node_ReindexStmt:
		f.Command = Utility
		b.utilityRelation(e.ReindexStmt.Relation)
		if e.ReindexStmt.Relation == nil || len(e.ReindexStmt.Params) > 0 {
			f.Flags |= NoTxBlock
		}
	case *pg.Node_CheckPointStmt:
		f.Command = Utility
		f.Flags |= NoTxBlock
	default:
		b.ddl(n)
	}
}

// inner reads the statement inside another one.
func (b *builder) inner(c Command, n *pg.Node) {
	b.f.Command = c
	switch n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		b.f.Of = Select
	case *pg.Node_InsertStmt:
		b.f.Of = Insert
	case *pg.Node_UpdateStmt:
		b.f.Of = Update
	case *pg.Node_DeleteStmt:
		b.f.Of = Delete
	case *pg.Node_MergeStmt:
		b.f.Of = Merge
	case *pg.Node_ExecuteStmt:
		b.f.Of = Execute
		b.execute(n.GetExecuteStmt())
		return
	case *pg.Node_CreateTableAsStmt, *pg.Node_DeclareCursorStmt:
		s, q := n.GetCreateTableAsStmt(), n.GetDeclareCursorStmt().GetQuery()
		if s != nil {
			q = s.Query
			b.into(s.Into)
			b.f.Command, b.f.Of = c, CreateTableAs
		}
		b.oneServer("%s of this statement is not supported", c)
		if x := q.GetExecuteStmt(); x != nil {
			b.f.Of = Execute
			b.execute(x)
			return
		}
		b.query(q, -1, false, nil)
		return
	case *pg.Node_RefreshMatViewStmt:
		b.unusual("%s of this statement is not supported", c)
		return
	}
	b.query(n, -1, false, nil)
	if b.f.Command != c { // SELECT INTO inside
		if c == Prepare {
			b.unusual("%s of SELECT INTO is not supported", c)
		}
		b.oneServer("%s of SELECT INTO is not supported", c)
		b.f.Command, b.f.Of = c, CreateTableAs
	}
}

// execute reads the name and the arguments of an EXECUTE.
func (b *builder) execute(s *pg.ExecuteStmt) {
	b.f.Name = s.Name
	block := b.block(-1, false)
	for _, a := range s.Params {
		b.f.Args = append(b.f.Args, b.value(a, block))
	}
	b.exprs(s.Params, scope{block: block})
}

func (b *builder) relations(list []*pg.Node) {
	for _, r := range list {
		b.utilityRelation(r.GetRangeVar())
	}
}

func (b *builder) allStructural() {
	for i := range b.lits {
		b.f.Structural = append(b.f.Structural, i)
	}
}

// boolean reads an option's value as defGetBoolean does: none is true.
func (b *builder) boolean(n *pg.Node) bool {
	v, ok := b.optionValue(n)
	if !ok {
		return true
	}
	switch strings.ToLower(v) {
	case "false", "off", "0":
		return false
	}
	return true
}

// optionValue reads the value of an option: a word, a number, a string. ok is false when it has none.
func (b *builder) optionValue(n *pg.Node) (value string, ok bool) {
	switch e := n.GetNode().(type) {
	case *pg.Node_String_:
		return e.String_.Sval, true
	case *pg.Node_Integer:
		return strconv.Itoa(int(e.Integer.Ival)), true
	case *pg.Node_Float:
		return e.Float.Fval, true
	case *pg.Node_Boolean:
		return strconv.FormatBool(e.Boolean.Boolval), true
	case *pg.Node_AConst:
		return b.literalText(n)
	case *pg.Node_TypeName:
		return strings.Join(strs(e.TypeName.Names), "."), true
	case *pg.Node_List:
		var parts []string
		for _, i := range e.List.Items {
			v, _ := b.optionValue(i)
			parts = append(parts, v)
		}
		return strings.Join(parts, ","), true
	case *pg.Node_AStar:
		return "*", true
	}
	return "", false
}

func (b *builder) copy(s *pg.CopyStmt) {
	f := b.f
	f.Command = CopyTo
	if s.IsFrom {
		f.Command = CopyFrom
	}
	c := &Copy{From: s.IsFrom, Stdio: s.Filename == "" && !s.IsProgram, Columns: strs(s.Attlist), Query: s.Query != nil, Where: s.WhereClause != nil}
	for _, o := range s.Options {
		d := o.GetDefElem()
		v, _ := b.optionValue(d.GetArg())
		c.Options = append(c.Options, Option{strings.ToLower(d.GetDefname()), v})
	}
	f.Copy = c
	if s.Query != nil {
		b.inner(CopyTo, s.Query)
		return
	}
	b.utilityRelation(s.Relation)
	if !s.IsFrom {
		f.Relations[len(f.Relations)-1].Target = false
	}
	if s.WhereClause != nil {
		b.expr(s.WhereClause, scope{block: b.block(-1, false)})
	}
}
