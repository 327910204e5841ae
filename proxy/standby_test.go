package proxy_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// onReplica is a session whose reads of customers go to a replica, and the keys of two of them, on either shard.
func onReplica(t *testing.T, engineName string) (c *pgx.Conn, keys [2]int) {
	t.Helper()
	_, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
	c = connect(t, dsn)
	keys = keysOn(t, c)
	exec(t, c, "set tidemark.consistency = 'eventual'")
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		_, err := c.Exec(t.Context(), "select name from customers where id = $1", keys[0])
		if err == nil && strings.Contains(text(t, c, "show tidemark.route"), "replica") {
			return c, keys
		}
		if time.Now().After(until) {
			t.Fatal("no read goes to a replica", err)
		}
	}
}

// simply runs a query string and returns the last value of the last row.
func simply(t *testing.T, c *pgx.Conn, sql string) (last string) {
	t.Helper()
	results, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for _, r := range results {
		for _, row := range r.Rows {
			last = string(row[len(row)-1])
		}
	}
	return last
}

// No replica runs a serializable transaction: it stays with the primary, for itself and where sessions have such by default.
func TestSerializableIsOfThePrimary(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		c, _ := onReplica(t, engineName)
		for _, begin := range [][]string{{"begin isolation level serializable, read only"}, {"begin read only", "set transaction isolation level serializable"}} {
			for _, sql := range begin {
				simply(t, c, sql)
			}
			simply(t, c, "select name from customers where id = 1")
			if status := c.PgConn().TxStatus(); status != 'T' {
				t.Errorf("%s: the status is %c behind a read", begin, status)
			}
			if got := simply(t, c, "select current_setting('transaction_isolation')"); got != "serializable" {
				t.Errorf("%s: %s", begin, got)
			}
			simply(t, c, "commit")
		}
		simply(t, c, "set default_transaction_isolation = 'Serializable'")
		simply(t, c, "select name from customers where id = 1")
		exec(t, c, "select name from customers where id = $1", 1)
		simply(t, c, "begin read only")
		simply(t, c, "select name from customers where id = 1")
		simply(t, c, "commit")
		simply(t, c, "reset default_transaction_isolation")
		simply(t, c, "select name from customers where id = 1")
	})
}

// A session that keeps a cursor can go on to write.
func TestHeldCursorIsOfThePrimary(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		c, keys := onReplica(t, engineName)
		simply(t, c, "create table noted (id int)")
		simply(t, c, "declare kept cursor with hold for select 5")
		if got := simply(t, c, "fetch from kept"); got != "5" {
			t.Errorf("fetched %q", got)
		}
		simply(t, c, "insert into noted values (1)")
		exec(t, c, "update customers set name = 'x' where id = $1", keys[1])
		simply(t, c, "close kept")
	})
}

// pipelined sends batches, each of its statements, and says what each statement brought: a value, nothing, or an error.
func pipelined(t *testing.T, c *pgx.Conn, batches ...[]string) (got []string) {
	t.Helper()
	p := c.PgConn().StartPipeline(t.Context())
	for _, b := range batches {
		for _, sql := range b {
			p.SendQueryParams(sql, nil, nil, nil, nil)
		}
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	for syncs := 0; syncs < len(batches); {
		r, err := p.GetResults()
		switch r := r.(type) {
		case *pgconn.PipelineSync:
			syncs++
		case *pgconn.ResultReader:
			out := r.Read()
			switch {
			case out.Err != nil:
				got = append(got, sqlState(out.Err))
			case len(out.Rows) > 0:
				got = append(got, string(out.Rows[0][0]))
			default:
				got = append(got, out.CommandTag.String())
			}
		default:
			if err == nil {
				t.Fatalf("%T", r)
			}
			got = append(got, sqlState(err))
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

// A transaction that begins behind a read of the same batch can write.
func TestBeginBehindReadOnReplica(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		c, _ := onReplica(t, engineName)
		got := pipelined(t, c, []string{"select name from customers where id = 1", "begin"})
		if len(got) != 2 || got[1] != "BEGIN" || c.PgConn().TxStatus() != 'T' {
			t.Fatalf("got %q, status %c", got, c.PgConn().TxStatus())
		}
		simply(t, c, "update customers set name = 'y' where id = 1")
		simply(t, c, "commit")
	})
}

// A transaction that begins in the middle of a batch is not left behind for another shard.
func TestBeginAmidBatchStays(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		keys := keysOn(t, c)
		read := func(i int) string { return "select count(*)::text from customers where id = " + strconv.Itoa(keys[i]) }
		got := pipelined(t, c, []string{read(0), "begin", read(1)})
		if strings.Join(got, " ") != "0 BEGIN 0A000" || c.PgConn().TxStatus() != 'E' {
			t.Errorf("got %q, status %c", got, c.PgConn().TxStatus())
		}
		simply(t, c, "rollback")
		if got := pipelined(t, c, []string{read(0), "begin", read(0)}); strings.Join(got, " ") != "0 BEGIN 0" || c.PgConn().TxStatus() != 'T' {
			t.Errorf("got %q, status %c", got, c.PgConn().TxStatus())
		}
		simply(t, c, "rollback")
	})
}

// An error of an earlier batch, which comes while a batch goes on to another shard, is none of that.
func TestBatchGoesOnBehindAnError(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		keys := keysOn(t, c)
		for i, k := range keys {
			exec(t, c, "insert into customers values ($1, $2) on conflict (id) do update set name = excluded.name", k, string(rune('a'+i)))
		}
		for i, k := range keys {
			name, read := string(rune('a'+i)), "select name from customers where id = "+strconv.Itoa(k)
			got := pipelined(t, c, []string{"select 1/length(pg_sleep(0.3)::text)"}, []string{"show role", read})
			if strings.Join(got, " ") != "22012 none "+name {
				t.Errorf("got %q", got)
			}
			if got := pipelined(t, c, []string{"select nosuch", read}, []string{read}); strings.Join(got, " ") != "42703 "+name {
				t.Errorf("behind an error of its own: %q", got)
			}
		}
	})
}
