"""psycopg 2: client-side binding and simple queries; what it does is printed, so that two servers can be compared."""
import datetime
import decimal
import io
import select
import sys
import threading
import time
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras

dsn = sys.argv[1]
psycopg2.extras.register_uuid()


def say(name, *values):
    print(f"{name}:", *(repr(v) for v in values), flush=True)


def fails(name, call, *args):
    try:
        call(*args)
        say(name, "no error")
    except psycopg2.Error as e:
        say(name, type(e).__name__, e.pgcode, (e.diag.message_primary or str(e)).splitlines()[0])


def query(conn, sql, args=None):
    with conn.cursor() as cur:
        cur.execute(sql, args)
        return cur.fetchall() if cur.description else cur.statusmessage




def part(body):
    """One part of the script, on a connection of its own."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    try:
        body(conn)
    except Exception as e:
        say("FAILED " + body.__name__, type(e).__name__, str(e).splitlines()[:1])
    finally:
        conn.close()


@part
def values(conn):
    samples = [-7, 9007199254740993, 1.5, decimal.Decimal("123.4560"), "žluťoučký 🐎 \t\\'", b"\0\1\xff", True, None, datetime.date(2024, 2, 29),
               datetime.datetime(2024, 2, 29, 12, 34, 56, 789000), datetime.timedelta(days=1, seconds=5), uuid.UUID(int=5), [1, 2, 3], ["a", None, 'c "d"']]
    for v in samples:
        got = query(conn, "select %s", (v,))
        say("value", [bytes(x) if isinstance(x, memoryview) else x for x in got[0]])
    say("json", query(conn, "select %s::jsonb", (psycopg2.extras.Json({"b": "€"}),)))
    say("empty", query(conn, "insert into notes values (1, 'n'); select 1; select 'two'"))
    fails("nothing", query, conn, "")


@part
def transactions(conn):
    conn.autocommit = False
    with conn:
        query(conn, "insert into customers values (1, 'one')")
        query(conn, "savepoint a")
        fails("duplicate", query, conn, "insert into customers values (1, 'again')")
        fails("aborted", query, conn, "select 1")
        query(conn, "rollback to a")
        query(conn, "update customers set name = name || '!' where id = 1")
    say("committed", query(conn, "select name from customers where id = 1"), conn.get_transaction_status())
    conn.rollback()
    for name, sql in {"syntax": "selec 1", "division": "select 1/0", "no table": "select * from nowhere where id = 1"}.items():
        fails(name, query, conn, sql)
        conn.rollback()


@part
def batches(conn):
    conn.autocommit = False
    with conn, conn.cursor() as cur:
        psycopg2.extras.execute_values(cur, "insert into orders (customer_id, id, total) values %s", [(7, i, i * 2) for i in range(250)])
        psycopg2.extras.execute_batch(cur, "update orders set total = %s where customer_id = 7 and id = %s", [(1, i) for i in range(100)])
    say("sum", query(conn, "select sum(total), count(*) from orders where customer_id = 7"))
    conn.rollback()


@part
def copies(conn):
    with conn.cursor() as cur:
        cur.copy_expert("copy customers (id, name) from stdin", io.StringIO("10\tten\n11\televen\n12\t\\N\n"))
        cur.copy_from(io.StringIO("20\ttwenty\n"), "notes", columns=("id", "body"))
    for i in (10, 11, 12):
        say("copied", query(conn, "select * from customers where id = %s", (i,)))
    with conn.cursor() as cur:
        fails("bad copy", cur.copy_expert, "copy notes from stdin", io.StringIO("x\ty\n"))
        out = io.StringIO()
        cur.copy_expert("copy (select g, repeat('x', g) from generate_series(1, 3) g) to stdout", out)
        say("copy out", out.getvalue())


@part
def cursors(conn):
    conn.autocommit = False
    with conn.cursor(name="served") as cur:
        cur.itersize = 100
        cur.execute("select g from generate_series(1, 250) g")
        say("named cursor", sum(r[0] for r in cur))
    with conn.cursor(name="scrolls", scrollable=True) as cur:
        cur.execute("select g from generate_series(1, 100) g")
        cur.scroll(50)
        say("scrolled", cur.fetchone(), cur.fetchmany(2))
    conn.commit()
    with conn.cursor(name="held", withhold=True) as cur:
        cur.execute("select g from generate_series(1, 5) g")
        conn.commit()
        say("held", cur.fetchall())
    conn.commit()


@part
def cancel(conn):
    threading.Timer(0.3, conn.cancel).start()
    fails("cancelled", query, conn, "select pg_sleep(60)")
    say("after", query(conn, "select 1"))


@part
def notifications(conn):
    query(conn, "listen news")
    other = psycopg2.connect(dsn)
    other.autocommit = True
    query(other, "notify news, 'číslo 1'")
    for _ in range(100):
        if select.select([conn], [], [], 0.1)[0]:
            conn.poll()
        if conn.notifies:
            break
    say("notified", [(n.channel, n.payload) for n in conn.notifies])
    other.close()
    query(conn, "unlisten *")


@part
def large(conn):
    text = "ž" * (1 << 20)
    got = query(conn, "select %s, length(%s)", (text, text))
    say("large", got[0][0] == text, got[0][1])


@part
def prepared(conn):
    for i in range(100):
        query(conn, f"prepare churn{i} as select $1::int + {i}")
        assert query(conn, f"execute churn{i}({i})") == [(2 * i,)]
    query(conn, "deallocate churn0")
    fails("deallocated", query, conn, "execute churn0(1)")
    query(conn, "deallocate all")


@part
def session(conn):
    query(conn, "create temp table mine (a int)")
    query(conn, "insert into mine values (1), (2)")
    say("temp table", query(conn, "select count(*) from mine"))
    say("settings", query(conn, "set timezone = 'Asia/Tokyo'"), query(conn, "show timezone"), conn.get_parameter_status("TimeZone"))
    query(conn, "do $$ begin raise notice 'noticed %', 1; end $$")
    say("notices", conn.notices)
    conn.set_session(isolation_level="SERIALIZABLE", readonly=True, autocommit=False)
    say("isolation", query(conn, "show transaction_isolation"), query(conn, "show transaction_read_only"))
    conn.rollback()


@part
def reconnect(conn):
    other = psycopg2.connect(dsn, options="-c statement_timeout=54321", application_name="mine")
    say("reconnected", query(other, "select name from customers where id = 1"), query(other, "show statement_timeout"), query(other, "show application_name"))
    other.close()
