"""psycopg 3 and SQLAlchemy through Tidemark: prints ok, or fails with a traceback."""
import sys

import psycopg
import sqlalchemy as sa

dsn = sys.argv[1]

with psycopg.connect(dsn, autocommit=True) as conn:
    for i in range(20):  # from the fifth time on psycopg prepares a statement
        conn.execute("insert into customers values (%s, %s)", (i, f"c{i}"))
        assert conn.execute("select name from customers where id = %s", (i,)).fetchone() == (f"c{i}",)
    assert len(conn.execute("select id from customers").fetchall()) == 20
    with conn.cursor(binary=True) as cur:
        assert cur.execute("select id, name from customers where id = %s", (7,)).fetchone() == (7, "c7")
    with conn.cursor() as cur:
        with cur.copy("copy customers (id, name) from stdin") as copy:
            for i in range(100, 200):
                copy.write_row((i, f"copied\t{i}"))
        assert cur.execute("select name from customers where id = 150").fetchone() == ("copied\t150",)
        with cur.copy("copy (select id from customers where id = 150) to stdout") as copy:
            assert [row for row in copy.rows()] == [("150",)]
    try:
        conn.execute("select count(*) from customers")
    except psycopg.errors.FeatureNotSupported as e:
        assert "count" in str(e)
    else:
        raise AssertionError("a count over two shards was not refused")
    with conn.pipeline():
        rows = [conn.execute("select name from customers where id = %s", (i,)) for i in range(10)]
        assert [r.fetchone()[0] for r in rows] == [f"c{i}" for i in range(10)]

with psycopg.connect(dsn) as conn:
    conn.execute("insert into notes values (1, 'kept')")
    try:
        with conn.transaction():  # a savepoint
            conn.execute("insert into notes values (1, 'twice')")
    except psycopg.errors.UniqueViolation:
        pass
    conn.commit()
    with conn.cursor(name="served") as cur:
        cur.execute("select g from generate_series(1, 1000) g")
        assert sum(r[0] for r in cur) == 500500
    conn.rollback()

engine = sa.create_engine(dsn.replace("postgres://", "postgresql+psycopg://"), pool_size=2)
meta = sa.MetaData()
meta.reflect(engine, only=["customers", "orders"])
customers, orders = meta.tables["customers"], meta.tables["orders"]
with engine.begin() as tx:
    tx.execute(customers.insert(), {"id": 1000, "name": "sa"})
    tx.execute(orders.insert(), [{"customer_id": 1000, "id": i, "total": 2} for i in range(5)])
with engine.begin() as tx:
    q = sa.select(sa.func.sum(orders.c.total)).where(orders.c.customer_id == 1000)
    assert tx.execute(q).scalar_one() == 10
    join = sa.select(customers.c.name, orders.c.id).join(orders, orders.c.customer_id == customers.c.id).where(customers.c.id == 1000)
    assert len(tx.execute(join).all()) == 5
engine.dispose()
print("ok")
