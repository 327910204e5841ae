"""psycopg 3: pipelines, binary values, server cursors; what it does is printed, so that two servers can be compared."""
import datetime
import decimal
import sys
import threading
import uuid

import psycopg
from psycopg.types.json import Jsonb

dsn = sys.argv[1]


def say(name, *values):
    print(f"{name}:", *(repr(v) for v in values), flush=True)


def fails(name, call, *args):
    try:
        call(*args)
        say(name, "no error")
    except psycopg.Error as e:
        say(name, type(e).__name__, e.sqlstate, e.diag.message_primary)




def part(body):
    """One part of the script, on a connection of its own."""
    conn = psycopg.connect(dsn, autocommit=True)
    try:
        body(conn)
    except Exception as e:
        say("FAILED " + body.__name__, type(e).__name__, str(e).splitlines()[:1])
    finally:
        conn.close()


@part
def values(conn):
    samples = [("int2", -7), ("int8", 9007199254740993), ("float8", 1.5), ("numeric", decimal.Decimal("123.4560")), ("text", "žluťoučký 🐎 \t\\'"), ("bytea", b"\0\1\xff"),
               ("bool", True), ("date", datetime.date(2024, 2, 29)), ("timestamp", datetime.datetime(2024, 2, 29, 12, 34, 56)), ("interval", datetime.timedelta(days=1)),
               ("uuid", uuid.UUID(int=5)), ("jsonb", Jsonb({"b": "€"})), ("int4[]", [1, None, 3]), ("text[]", ["a", 'c "d"'])]
    for binary in (False, True):
        with conn.cursor(binary=binary) as cur:
            for typ, v in samples:
                say(typ, cur.execute(f"select %s::{typ}, %b::{typ}, null::{typ}" if typ != "interval" else f"select %s::{typ}, null", (v, v) if typ != "interval" else (v,)).fetchone())


@part
def transactions(conn):
    with conn.transaction():
        conn.execute("insert into customers values (1, 'one')")

        def again():
            with conn.transaction():
                conn.execute("insert into customers values (%s, %s)", (1, "again"))

        fails("duplicate", again)
        conn.execute("update customers set name = name || '!' where id = %s", (1,))
    say("committed", conn.execute("select name from customers where id = 1").fetchall())
    for name, sql in {"syntax": "selec 1", "division": "select 1/%s", "no table": "select * from nowhere where id = %s"}.items():
        fails(name, conn.execute, sql, (0,) if "%s" in sql else None)


@part
def prepared(conn):
    for i in range(300):
        assert conn.execute(f"select %s::int + {i}", (i,), prepare=True).fetchone() == (2 * i,)
    for i in range(8):  # from the fifth time on it is prepared
        say("prepared", conn.execute("select name from customers where id = %s", (1,)).fetchone())


@part
def changes(conn):
    conn.execute("create table changing (id int primary key, a int)")
    conn.execute("insert into changing values (1, 1)")
    conn.prepare_threshold = 0
    say("before the change", conn.execute("select * from changing").fetchall())
    conn.execute("alter table changing add b text")
    fails("changed in a transaction", conn.execute, "select * from changing where id = %s", (1,))
    conn.execute("drop table changing")
    conn.prepare_threshold = 5


@part
def pipelines(conn):
    with conn.pipeline() as p:
        cur = [conn.execute("select %s::int", (i,)) for i in range(20)]
        p.sync()
        say("pipeline", [c.fetchone()[0] for c in cur])
    try:
        with conn.pipeline():
            conn.execute("insert into notes values (1, 'a')")
            conn.execute("insert into notes values (1, 'b')")
            conn.execute("insert into notes values (2, 'c')")
    except psycopg.Error as e:
        say("pipeline with an error", type(e).__name__, e.sqlstate)
    say("nothing of it", conn.execute("select count(*) from notes").fetchone())
    with conn.cursor() as cur:
        cur.executemany("insert into orders values (%s, %s, %s) returning id", [(7, i, i) for i in range(100)], returning=True)
        ids = []
        while True:
            ids += [r[0] for r in cur.fetchall()]
            if not cur.nextset():
                break
        say("executemany", len(ids), sum(ids))


@part
def copies(conn):
    with conn.cursor() as cur:
        with cur.copy("copy customers (id, name) from stdin") as copy:
            for i in range(10, 13):
                copy.write_row((i, f"copied\t{i}"))
        with cur.copy("copy notes (id, body) from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            for i in range(10, 13):
                copy.write_row((i, f"binary {i}"))
        say("copied", [conn.execute("select * from customers where id = %s", (i,)).fetchone() for i in range(10, 13)], conn.execute("select * from notes where id = 11").fetchone())

        def gives_up():
            with cur.copy("copy notes from stdin") as copy:
                copy.write_row((99, "lost"))
                raise RuntimeError("changed my mind")

        try:
            gives_up()
        except RuntimeError as e:
            say("gave up", str(e), conn.execute("select count(*) from notes where id = 99").fetchone())
        with cur.copy("copy (select g, repeat('x', g) from generate_series(1, 3) g) to stdout (format binary)") as copy:
            copy.set_types(["int4", "text"])
            say("copy out", list(copy.rows()))


@part
def cursors(conn):
    with conn.transaction(), conn.cursor(name="served", scrollable=True) as cur:
        cur.itersize = 100
        cur.execute("select g from generate_series(1, %s) g", (250,))
        say("server cursor", sum(r[0] for r in cur))
        cur.scroll(10, mode="absolute")
        say("scrolled", cur.fetchone())


@part
def held(conn):
    with conn.cursor(name="held", withhold=True) as cur:
        cur.execute("select g from generate_series(1, 5) g")
        say("held", cur.fetchmany(2), cur.fetchall())


@part
def streams(conn):
    with conn.cursor() as cur:
        say("stream", sum(r[0] for r in cur.stream("select g from generate_series(1, 1000) g")))
    with psycopg.ClientCursor(conn) as cur:
        say("client side", cur.execute("select %s, %s", ("it's", 2)).fetchone())


@part
def cancel(conn):
    threading.Timer(0.3, conn.cancel_safe).start()
    fails("cancelled", conn.execute, "select pg_sleep(60)")
    say("after", conn.execute("select 1").fetchone())


@part
def notifications(conn):
    with psycopg.connect(dsn, autocommit=True) as other:
        conn.execute("listen news")
        other.execute("select pg_notify('news', %s)", ("číslo 1",))
        for n in conn.notifies(timeout=10, stop_after=1):
            say("notified", n.channel, n.payload)
        conn.execute("unlisten *")


@part
def large(conn):
    text = "ž" * (1 << 20)
    got = conn.execute("select %s::text, length(%s::text)", (text, text)).fetchone()
    say("large", got[0] == text, got[1])
    with conn.cursor(binary=True) as cur:
        blob = bytes(range(256)) * (20 << 10)
        say("blob", cur.execute("select %b::bytea", (blob,)).fetchone()[0] == blob)


@part
def reconnect(conn):
    with psycopg.connect(dsn, options="-c work_mem=5MB") as other:
        say("reconnected", other.execute("select name from customers where id = 1").fetchone(), other.execute("show work_mem").fetchone())
