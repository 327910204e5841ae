"""asyncpg: binary everywhere, a cache of prepared statements, introspection of types; what it does is printed, so that two servers can be compared."""
import asyncio
import datetime
import decimal
import io
import sys
import uuid

import asyncpg

dsn = sys.argv[1]


def say(name, *values):
    print(f"{name}:", *(repr(v) for v in values), flush=True)


async def fails(name, awaitable):
    try:
        await awaitable
        say(name, "no error")
    except asyncpg.PostgresError as e:
        say(name, type(e).__name__, e.sqlstate, e.message)


async def values(conn):
    samples = [("int2", -7), ("int4", 42), ("int8", 9007199254740993), ("float4", 1.5), ("float8", -0.1), ("numeric", decimal.Decimal("123.4560")), ("text", "žluťoučký 🐎 \t\\'"),
               ("bytea", b"\0\1\xff"), ("bool", True), ("date", datetime.date(2024, 2, 29)), ("timestamp", datetime.datetime(2024, 2, 29, 12, 34, 56)),
               ("timestamptz", datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc)), ("interval", datetime.timedelta(days=1)), ("uuid", uuid.UUID(int=5)),
               ("jsonb", '{"b": "€"}'), ("int4[]", [1, None, 3]), ("text[]", ["a", 'c "d"']), ("int4range", asyncpg.Range(1, 5)), ("inet", "10.0.0.1")]
    for typ, v in samples:
        say(typ, tuple(await conn.fetchrow(f"select $1::{typ} v, null::{typ} n", v)))


async def enums(conn):
    await conn.execute("create type mood as enum ('sad', 'happy')")  # its oid is looked up
    say("enum", await conn.fetchval("select $1::mood", "happy"))
    await conn.execute("drop type mood")


async def transactions(conn):
    async with conn.transaction():
        await conn.execute("insert into customers values ($1, $2)", 1, "one")
        try:
            async with conn.transaction():
                await conn.execute("insert into customers values (1, 'again')")
        except asyncpg.UniqueViolationError as e:
            say("duplicate", e.sqlstate)
        await conn.execute("update customers set name = name || '!' where id = $1", 1)
    say("committed", await conn.fetchval("select name from customers where id = $1", 1))
    await fails("syntax", conn.fetch("selec 1"))
    await fails("division", conn.fetch("select 1/$1::int", 0))
    await fails("no table", conn.fetch("select * from nowhere where id = $1", 1))
    async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
        say("isolation", await conn.fetchval("show transaction_isolation"))


async def prepared(conn):
    st = await conn.prepare("select name from customers where id = $1")
    say("prepared", [a.name for a in st.get_attributes()], [p.name for p in st.get_parameters()], await st.fetchval(1), await st.fetchval(2))
    for i in range(300):  # more than the cache holds
        assert await conn.fetchval(f"select $1::int + {i}", i) == 2 * i
    await conn.executemany("insert into orders values ($1, $2, $3)", [(7, i, i) for i in range(100)])
    await fails("executemany", conn.executemany("insert into orders values ($1, $2, $3)", [(7, 100, 1), (7, 1, 1)]))
    say("orders", tuple(await conn.fetchrow("select count(*), sum(total) from orders where customer_id = $1", 7)))
    await conn.execute("insert into notes values (1, 'a'); insert into notes values (2, 'b')")


async def copies(conn):
    say("copy", await conn.copy_to_table("customers", source=io.BytesIO(b"10\tten\n11\televen\n"), columns=["id", "name"]))
    say("records", await conn.copy_records_to_table("notes", records=[(i, f"note {i}") for i in range(10, 60)], columns=["id", "body"]))
    out = io.BytesIO()
    say("copied", await conn.copy_from_query("select id, name from customers where id = $1", 11, output=out), out.getvalue())
    out = io.BytesIO()
    say("copied", await conn.copy_from_table("notes", columns=["id"], output=out, format="csv"), len(out.getvalue()))
    await fails("bad copy", conn.copy_to_table("notes", source=io.BytesIO(b"x\ty\n")))


async def cursors(conn):
    async with conn.transaction():
        say("cursor", sum([r[0] async for r in conn.cursor("select g from generate_series(1, $1::int) g", 250, prefetch=100)]))
        cur = await conn.cursor("select g from generate_series(1, 100) g")
        await cur.forward(50)
        say("forward", (await cur.fetchrow())[0], [r[0] for r in await cur.fetch(2)])


async def cancel(conn):
    try:
        await conn.fetch("select pg_sleep(60)", timeout=0.3)
    except asyncio.TimeoutError:
        say("timed out")
    say("after", await conn.fetchval("select 1"))


async def notifications(conn):
    heard = asyncio.get_running_loop().create_future()
    await conn.add_listener("news", lambda c, pid, channel, payload: heard.done() or heard.set_result((channel, payload)))
    other = await asyncpg.connect(dsn)
    await other.execute("select pg_notify('news', $1)", "číslo 1")
    await other.close()
    say("notified", await asyncio.wait_for(heard, 10))
    await conn.reset()


async def large(conn):
    text = "ž" * (1 << 20)
    got = await conn.fetchrow("select $1::text v, length($1::text) n", text)
    say("large", got["v"] == text, got["n"])
    blob = bytes(range(256)) * (20 << 10)
    say("blob", await conn.fetchval("select $1::bytea", blob) == blob)


async def pools(conn):
    pool = await asyncpg.create_pool(dsn, min_size=2, max_size=4, server_settings={"application_name": "mine"}, statement_cache_size=20)

    async def work(i):
        async with pool.acquire() as c:
            async with c.transaction():
                await c.execute("set local timezone = 'Asia/Tokyo'")
                return await c.fetchval("select $1::int + length(current_setting('timezone')) + length(current_setting('application_name'))", i)

    say("pool", sum(await asyncio.gather(*(work(i) for i in range(50)))))
    async with pool.acquire() as c:
        await c.execute("set timezone = 'Asia/Tokyo'")
    async with pool.acquire() as c:
        say("reset by the pool", await c.fetchval("select current_setting('timezone') = 'Asia/Tokyo'"))
    await pool.close()


async def ended(_):
    """A server process that ends under a pool: the statement fails, and the pool goes on."""
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1)
    try:
        await pool.fetchval("select pg_terminate_backend(pg_backend_pid())")
        say("ended", "no error")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # which, is a matter of whether the error or the end of the connection is quicker
        say("ended", "an error")
    say("again", await pool.fetchval("select $1::int", 7))
    await pool.close()


async def main():
    for part in (values, enums, transactions, prepared, copies, cursors, cancel, notifications, large, pools, ended):
        conn = await asyncpg.connect(dsn)
        try:
            await part(conn)
        except Exception as e:
            say("FAILED " + part.__name__, type(e).__name__, str(e).splitlines()[:1])
        finally:
            await conn.close(timeout=5)


asyncio.run(main())
