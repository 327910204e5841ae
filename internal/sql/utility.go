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
		if e.CreateTableAsStmt.Into.GetRel().GetRelpersistence() == "t" {
			f.Flags |= Temporary
		}
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

func (b *builder) transaction(s *pg.TransactionStmt) {
	b.f.Command = Transaction
	t := &Tx{Chain: s.Chain, Name: s.SavepointName}
	switch s.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN:
		t.Op = Begin
	case pg.TransactionStmtKind_TRANS_STMT_START:
		t.Op, t.Start = Begin, true
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		t.Op = Commit
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		t.Op = Rollback
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		t.Op = Savepoint
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		t.Op = Release
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		t.Op = RollbackTo
	case pg.TransactionStmtKind_TRANS_STMT_PREPARE:
		t.Op, t.Name = PrepareTransaction, s.Gid
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:
		t.Op, t.Name = CommitPrepared, s.Gid
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
		t.Op, t.Name = RollbackPrepared, s.Gid
	default:
		b.unusual("this transaction command is not supported")
	}
	b.modes(t, s.Options)
	b.f.Tx = t
}

// modes reads ISOLATION LEVEL, READ ONLY and DEFERRABLE.
func (b *builder) modes(t *Tx, options []*pg.Node) {
	for _, o := range options {
		d := o.GetDefElem()
		switch d.GetDefname() {
		case "transaction_isolation":
			t.Isolation, _ = b.literalText(d.Arg)
		case "transaction_read_only":
			on := b.one(d.Arg)
			t.ReadOnly = &on
		case "transaction_deferrable":
			on := b.one(d.Arg)
			t.Deferrable = &on
		}
	}
}

// one reads the constants 1 and 0 that the grammar puts for flags; they are no literals of the text.
func (b *builder) one(n *pg.Node) bool { return n.GetAConst().GetIval().GetIval() != 0 }

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

// bare notes a relation that is named without its schema.
func (b *builder) bare(r *pg.RangeVar) {
	if r != nil && r.Schemaname == "" && r.Catalogname == "" {
		b.f.Bare = append(b.f.Bare, r.Relname)
	}
}

// ddl reads the statements that change the catalog. Those that are the same on every shard are DDL; what must not
// happen behind a proxy's back (databases, tablespaces, system settings, subscriptions) is unusual.
func (b *builder) ddl(n *pg.Node) {
	f := b.f
	f.Command = DDL
	f.Flags |= SchemaChange
	temporary := func(r *pg.RangeVar) {
		if r.GetRelpersistence() == "t" || r.GetSchemaname() == "pg_temp" {
			f.Flags |= Temporary
		}
	}
	named := func(name []*pg.Node) {
		if n := len(name); n > 1 && name[n-2].GetString_().GetSval() == "pg_temp" {
			f.Flags |= Temporary
		}
	}
	switch e := n.GetNode().(type) {
	case *pg.Node_CreateEnumStmt:
		named(e.CreateEnumStmt.TypeName)
	case *pg.Node_CompositeTypeStmt:
		temporary(e.CompositeTypeStmt.Typevar)
	case *pg.Node_CreateRangeStmt:
		named(e.CreateRangeStmt.TypeName)
	case *pg.Node_CreateDomainStmt:
		named(e.CreateDomainStmt.Domainname)
	case *pg.Node_CreateFunctionStmt:
		named(e.CreateFunctionStmt.Funcname)
	case *pg.Node_DefineStmt: // an aggregate, operator, type, text search configuration, ...
		named(e.DefineStmt.Defnames)
	case *pg.Node_CreateStmt:
		temporary(e.CreateStmt.Relation)
		b.utilityRelation(e.CreateStmt.Relation)
	case *pg.Node_ViewStmt:
		temporary(e.ViewStmt.View)
		b.utilityRelation(e.ViewStmt.View)
	case *pg.Node_CreateSeqStmt:
		temporary(e.CreateSeqStmt.Sequence)
	case *pg.Node_IndexStmt:
		b.bare(e.IndexStmt.Relation)
		b.utilityRelation(e.IndexStmt.Relation)
		if e.IndexStmt.Concurrent {
			f.Flags |= NoTxBlock
		}
	case *pg.Node_RenameStmt:
		b.bare(e.RenameStmt.Relation)
	case *pg.Node_AlterSeqStmt:
		b.bare(e.AlterSeqStmt.Sequence)
	case *pg.Node_AlterTableStmt:
		b.bare(e.AlterTableStmt.Relation)
		b.utilityRelation(e.AlterTableStmt.Relation)
		for _, c := range e.AlterTableStmt.Cmds {
			if c.GetAlterTableCmd().GetSubtype() == pg.AlterTableType_AT_DetachPartition && c.GetAlterTableCmd().GetDef().GetPartitionCmd().GetConcurrent() {
				f.Flags |= NoTxBlock
			}
		}
	case *pg.Node_DropStmt:
		switch e.DropStmt.RemoveType {
		case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_SEQUENCE:
			for _, o := range e.DropStmt.Objects {
				names := strs(o.GetList().GetItems())
				if len(names) != 1 {
					f.Bare = nil
					break
				}
				f.Bare = append(f.Bare, names[0])
			}
		}
		if e.DropStmt.RemoveType == pg.ObjectType_OBJECT_TABLE {
			for _, o := range e.DropStmt.Objects {
				if names := strs(o.GetList().GetItems()); len(names) > 0 {
					r := &pg.RangeVar{Relname: names[len(names)-1]}
					if len(names) > 1 {
						r.Schemaname = names[len(names)-2]
					}
					b.utilityRelation(r)
				}
			}
		}
		if e.DropStmt.Concurrent {
			f.Flags |= NoTxBlock
		}
	case *pg.Node_AlterFunctionStmt, *pg.Node_CreateTrigStmt, *pg.Node_CreateEventTrigStmt, *pg.Node_AlterEventTrigStmt,
		*pg.Node_CreateSchemaStmt, *pg.Node_AlterEnumStmt, *pg.Node_AlterDomainStmt,
		*pg.Node_CommentStmt, *pg.Node_SecLabelStmt, *pg.Node_GrantStmt, *pg.Node_GrantRoleStmt, *pg.Node_AlterDefaultPrivilegesStmt,
		*pg.Node_CreateRoleStmt, *pg.Node_AlterRoleStmt, *pg.Node_AlterRoleSetStmt, *pg.Node_DropRoleStmt, *pg.Node_ReassignOwnedStmt,
		*pg.Node_DropOwnedStmt, *pg.Node_AlterOwnerStmt, *pg.Node_AlterObjectSchemaStmt, *pg.Node_AlterObjectDependsStmt, *pg.Node_AlterTypeStmt,
		*pg.Node_CreateExtensionStmt, *pg.Node_AlterExtensionStmt, *pg.Node_AlterExtensionContentsStmt, *pg.Node_CreatePolicyStmt,
		*pg.Node_AlterPolicyStmt, *pg.Node_RuleStmt, *pg.Node_CreateStatsStmt, *pg.Node_AlterStatsStmt, *pg.Node_CreateOpClassStmt,
		*pg.Node_CreateOpFamilyStmt, *pg.Node_AlterOpFamilyStmt, *pg.Node_AlterOperatorStmt, *pg.Node_CreateCastStmt, *pg.Node_CreateConversionStmt,
		*pg.Node_CreateTransformStmt, *pg.Node_CreatePlangStmt, *pg.Node_CreateAmStmt, *pg.Node_AlterCollationStmt,
		*pg.Node_AlterTsdictionaryStmt, *pg.Node_AlterTsconfigurationStmt, *pg.Node_CreatePublicationStmt, *pg.Node_AlterPublicationStmt,
		*pg.Node_CreateFdwStmt, *pg.Node_AlterFdwStmt, *pg.Node_CreateForeignServerStmt, *pg.Node_AlterForeignServerStmt,
		*pg.Node_CreateUserMappingStmt, *pg.Node_AlterUserMappingStmt, *pg.Node_DropUserMappingStmt, *pg.Node_CreateForeignTableStmt,
		*pg.Node_ImportForeignSchemaStmt, *pg.Node_AlterDatabaseSetStmt:
	case *pg.Node_CreatedbStmt, *pg.Node_DropdbStmt, *pg.Node_AlterDatabaseStmt, *pg.Node_AlterDatabaseRefreshCollStmt:
		b.oneServer("CREATE, ALTER and DROP DATABASE are not supported")
		if n.GetAlterDatabaseStmt() == nil && n.GetAlterDatabaseRefreshCollStmt() == nil || movesDatabase(n.GetAlterDatabaseStmt()) {
			f.Flags |= NoTxBlock
		}
	case *pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt:
		b.oneServer("commands for tablespaces are not supported")
		f.Flags |= NoTxBlock
	case *pg.Node_AlterTableSpaceOptionsStmt, *pg.Node_AlterTableMoveAllStmt:
		b.oneServer("commands for tablespaces are not supported")
	case *pg.Node_AlterSystemStmt:
		b.oneServer("ALTER SYSTEM is not supported")
		f.Flags |= NoTxBlock
	case *pg.Node_CreateSubscriptionStmt, *pg.Node_AlterSubscriptionStmt, *pg.Node_DropSubscriptionStmt:
		b.oneServer("commands for subscriptions are not supported")
	default:
		b.unusual("this kind of statement is not supported")
	}
}

// movesDatabase says whether ALTER DATABASE is SET TABLESPACE, the form of it that no transaction block may have.
func movesDatabase(s *pg.AlterDatabaseStmt) bool {
	for _, o := range s.GetOptions() {
		if o.GetDefElem().GetDefname() == "tablespace" {
			return true
		}
	}
	return false
}
