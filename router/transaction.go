package router

import "github.com/tidemarkdb/tidemark/internal/sql"

var txOps = map[sql.TxOp]TxOp{
	sql.Begin: Begin, sql.Commit: Commit, sql.Rollback: Rollback, sql.Savepoint: Savepoint, sql.Release: Release,
	sql.RollbackTo: RollbackTo, sql.SetTransaction: SetTransaction,
}

// PrepareTransaction is the tag of that command's plan.
const PrepareTransaction = "PREPARE TRANSACTION"

var txTags = [...]string{
	Begin: "BEGIN", Commit: "COMMIT", Rollback: "ROLLBACK", Savepoint: "SAVEPOINT", Release: "RELEASE", RollbackTo: "ROLLBACK",
	SetTransaction: "SET",
}

func (s *statement) transaction() *compiled {
	t := s.f.Tx
	op, ok := txOps[t.Op]
	switch {
	case ok:
	case len(s.all()) > 1:
		return s.fixed(refuse("two-phase commit by the client is not supported with several shards", "A prepared transaction belongs to one server, and its name does not say to which.", "Use BEGIN and COMMIT."))
	case t.Op == sql.PrepareTransaction:
		c := s.here(Writes)
		c.generic.Tag = PrepareTransaction
		return c
	default:
		return s.onDefault(Writes|NoTx, "the only shard")
	}
	tag := txTags[op]
	if t.Start {
		tag = "START TRANSACTION"
	}
	return s.fixedPlan(&Plan{Kind: Tx, Tag: tag, Tx: &TxControl{
		Op: op, Chain: t.Chain, Isolation: t.Isolation, ReadOnly: tristate(t.ReadOnly), Deferrable: tristate(t.Deferrable), Name: t.Name,
	}})
}

func tristate(b *bool) Tristate {
	switch {
	case b == nil:
		return Unset
	case *b:
		return On
	}
	return Off
}
