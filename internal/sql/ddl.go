package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// ddl reads the statements that change the catalog. Those that are the same on every shard are DDL; what must not
// happen behind a proxy's back (databases, tablespaces, system settings, subscriptions) is unusual.
func (b *builder) ddl(n *pg.Node) {
	f := b.f
	f.Command = DDL
	f.Flags |= SchemaChange
	named := func(name []*pg.Node) {
		if n := len(name); n > 1 && name[n-2].GetString_().GetSval() == "pg_temp" {
			f.Flags |= Temporary
		}
	}
	switch e := n.GetNode().(type) {
	case *pg.Node_CreateEnumStmt:
		named(e.CreateEnumStmt.TypeName)
	case *pg.Node_CompositeTypeStmt:
		b.temporary(e.CompositeTypeStmt.Typevar)
	case *pg.Node_CreateRangeStmt:
		named(e.CreateRangeStmt.TypeName)
	case *pg.Node_CreateDomainStmt:
		named(e.CreateDomainStmt.Domainname)
	case *pg.Node_CreateFunctionStmt:
		named(e.CreateFunctionStmt.Funcname)
		b.code(e.CreateFunctionStmt.Options...)
	case *pg.Node_DefineStmt: // an aggregate, operator, type, text search configuration, ...
		named(e.DefineStmt.Defnames)
		b.code()
	case *pg.Node_CreateStmt:
		b.temporary(e.CreateStmt.Relation)
		b.utilityRelation(e.CreateStmt.Relation)
		for _, x := range e.CreateStmt.TableElts {
			if like := x.GetTableLikeClause(); like != nil {
				f.Flags |= LikeOthers
				b.bare(like.Relation)
			}
		}
	case *pg.Node_ViewStmt:
		b.temporary(e.ViewStmt.View)
		b.utilityRelation(e.ViewStmt.View)
		query := (&builder{text: b.text, lits: b.lits}).statement(e.ViewStmt.Query)
		for i := range query.Relations {
			b.bare(&pg.RangeVar{Schemaname: query.Relations[i].Schema, Relname: query.Relations[i].Name})
		}
		b.code()
	case *pg.Node_CreateSeqStmt:
		b.temporary(e.CreateSeqStmt.Sequence)
	case *pg.Node_IndexStmt:
		b.bare(e.IndexStmt.Relation)
		b.utilityRelation(e.IndexStmt.Relation)
		if e.IndexStmt.Concurrent {
			f.Flags |= NoTxBlock
		}
	case *pg.Node_RenameStmt:
		b.temporary(e.RenameStmt.Relation)
		b.bare(e.RenameStmt.Relation)
		b.temporaries(e.RenameStmt.Object)
		switch e.RenameStmt.RenameType {
		case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW:
			f.Name = e.RenameStmt.Newname
			b.utilityRelation(e.RenameStmt.Relation)
		}
	case *pg.Node_AlterSeqStmt:
		b.temporary(e.AlterSeqStmt.Sequence)
		b.bare(e.AlterSeqStmt.Sequence)
	case *pg.Node_AlterTableStmt:
		b.bare(e.AlterTableStmt.Relation)
		b.utilityRelation(e.AlterTableStmt.Relation)
		for _, c := range e.AlterTableStmt.Cmds {
			if c.GetAlterTableCmd().GetSubtype() == pg.AlterTableType_AT_DetachPartition && c.GetAlterTableCmd().GetDef().GetPartitionCmd().GetConcurrent() {
				f.Flags |= NoTxBlock
			}
			b.computes(c.GetAlterTableCmd().GetDef())
		}
	case *pg.Node_DropStmt:
		for _, o := range e.DropStmt.Objects {
			names := strs(o.GetList().GetItems())
			if !(len(names) == 1 && ofSchema(e.DropStmt.RemoveType) || len(names) == 2 && ofTable(e.DropStmt.RemoveType)) {
				f.Bare = nil
				break
			}
			f.Bare = append(f.Bare, names[0])
		}
		if e.DropStmt.RemoveType != pg.ObjectType_OBJECT_TABLE {
			b.temporaries(e.DropStmt.Objects...)
		} else {
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
	case *pg.Node_AlterFunctionStmt:
		b.temporaries(&pg.Node{Node: &pg.Node_ObjectWithArgs{ObjectWithArgs: e.AlterFunctionStmt.Func}})
	case *pg.Node_AlterEnumStmt:
		named(e.AlterEnumStmt.TypeName)
	case *pg.Node_AlterDomainStmt:
		named(e.AlterDomainStmt.TypeName)
		b.computes(e.AlterDomainStmt.Def)
	case *pg.Node_AlterTypeStmt:
		named(e.AlterTypeStmt.TypeName)
	case *pg.Node_AlterOwnerStmt:
		b.largeObject(e.AlterOwnerStmt.ObjectType)
		b.temporaries(e.AlterOwnerStmt.Object)
	case *pg.Node_SecLabelStmt:
		b.largeObject(e.SecLabelStmt.Objtype)
	case *pg.Node_CommentStmt:
		b.largeObject(e.CommentStmt.Objtype)
		b.temporaries(e.CommentStmt.Object)
		names, kind := strs(e.CommentStmt.Object.GetList().GetItems()), e.CommentStmt.Objtype
		if len(names) == 1 && ofSchema(kind) || len(names) == 2 && (ofTable(kind) || kind == pg.ObjectType_OBJECT_COLUMN || kind == pg.ObjectType_OBJECT_TABCONSTRAINT) {
			f.Bare = append(f.Bare, names[0])
		}
	case *pg.Node_GrantStmt:
		b.largeObject(e.GrantStmt.Objtype)
		b.temporaries(e.GrantStmt.Objects...)
		for _, o := range e.GrantStmt.Objects {
			if o.GetRangeVar().GetSchemaname() != "" {
				f.Bare = nil
				break
			}
			b.bare(o.GetRangeVar())
		}
	case *pg.Node_CreateTrigStmt:
		b.onTable(e.CreateTrigStmt.Relation)
	case *pg.Node_RuleStmt:
		b.onTable(e.RuleStmt.Relation)
	case *pg.Node_CreatePolicyStmt:
		b.onTable(e.CreatePolicyStmt.Table)
	case *pg.Node_AlterPolicyStmt:
		b.onTable(e.AlterPolicyStmt.Table)
	case *pg.Node_CreateStatsStmt:
		for _, r := range e.CreateStatsStmt.Relations {
			b.bare(r.GetRangeVar())
		}
	case *pg.Node_CreateEventTrigStmt, *pg.Node_AlterEventTrigStmt,
		*pg.Node_CreateSchemaStmt, *pg.Node_GrantRoleStmt, *pg.Node_AlterDefaultPrivilegesStmt,
		*pg.Node_CreateRoleStmt, *pg.Node_AlterRoleStmt, *pg.Node_AlterRoleSetStmt, *pg.Node_DropRoleStmt, *pg.Node_ReassignOwnedStmt,
		*pg.Node_DropOwnedStmt, *pg.Node_AlterObjectSchemaStmt, *pg.Node_AlterObjectDependsStmt,
		*pg.Node_CreateExtensionStmt, *pg.Node_AlterExtensionStmt, *pg.Node_AlterExtensionContentsStmt,
		*pg.Node_AlterStatsStmt, *pg.Node_CreateOpClassStmt,
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

// computes reads the expressions of a definition, which are computed for the rows that are there.
func (b *builder) computes(def *pg.Node) {
	if def.GetRangeVar() == nil { // INHERIT
		b.expr(def, scope{block: b.block(-1, false)})
	}
}

// ofSchema says whether such an object is a relation, which may be temporary by its name alone.
func ofSchema(kind pg.ObjectType) bool {
	switch kind {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_SEQUENCE:
		return true
	}
	return false
}

// ofTable says whether such an object belongs to a table, whose name stands before its own.
func ofTable(kind pg.ObjectType) bool {
	switch kind {
	case pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY:
		return true
	}
	return false
}

// onTable is for what is made or changed on a table and then runs with its statements.
func (b *builder) onTable(r *pg.RangeVar) {
	b.temporary(r)
	b.bare(r)
	b.code()
}

// code notes what the object will run: what the options say, as those of a function do, or the statement itself.
func (b *builder) code(options ...*pg.Node) {
	b.f.Code = string(b.own)
	for _, o := range options {
		if d := o.GetDefElem(); d.GetDefname() == "as" {
			b.f.Code = strings.Join(strs(d.GetArg().GetList().GetItems()), " ")
		}
	}
	b.allStructural()
}

// temporary notes that a relation is created as a temporary one.
func (b *builder) temporary(r *pg.RangeVar) {
	if r.GetRelpersistence() == "t" || r.GetSchemaname() == "pg_temp" {
		b.f.Flags |= Temporary
	}
}

// temporaries notes that all objects that are changed or dropped are in the session's temporary schema, by their names.
func (b *builder) temporaries(objects ...*pg.Node) {
	for _, o := range objects {
		names := o.GetList().GetItems()
		switch e := o.GetNode().(type) {
		case *pg.Node_ObjectWithArgs:
			names = e.ObjectWithArgs.GetObjname()
		case *pg.Node_TypeName:
			names = e.TypeName.GetNames()
		}
		schema := o.GetRangeVar().GetSchemaname()
		if len(names) > 1 {
			schema = names[0].GetString_().GetSval()
		}
		if schema != "pg_temp" {
			return
		}
	}
	if len(objects) > 0 {
		b.f.Flags |= Temporary
	}
}

// largeObject notes that a statement is about large objects, which are on the shard where lo_create() and the like make them.
func (b *builder) largeObject(kind pg.ObjectType) {
	if kind == pg.ObjectType_OBJECT_LARGEOBJECT {
		b.f.Flags = b.f.Flags&^SchemaChange | LargeObject
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

// bare notes a relation that is named without its schema.
func (b *builder) bare(r *pg.RangeVar) {
	if r != nil && r.Schemaname == "" && r.Catalogname == "" {
		b.f.Bare = append(b.f.Bare, r.Relname)
	}
}
