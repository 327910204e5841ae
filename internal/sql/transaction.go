package sql

import pg "github.com/pganalyze/pg_query_go/v6"

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
