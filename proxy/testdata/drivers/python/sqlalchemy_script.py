"""SQLAlchemy, Core and ORM, over psycopg 2 and psycopg 3; what it does is printed, so that two servers can be compared."""
import decimal
import sys
import threading

import sqlalchemy as sa
from sqlalchemy import orm

dsn = sys.argv[1]
driver = ""


def say(name, *values):
    print(f"{driver} {name}:", *(repr(v) for v in values), flush=True)


def fails(name, call):
    try:
        call()
        say(name, "no error")
    except sa.exc.DBAPIError as e:
        say(name, type(e).__name__, getattr(e.orig, "pgcode", None) or getattr(e.orig, "sqlstate", None), str(e.orig).splitlines()[0])


class Base(orm.DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    name: orm.Mapped[str | None] = orm.mapped_column(sa.Text)
    orders: orm.Mapped[list["Order"]] = orm.relationship(back_populates="customer", order_by="Order.id")


class Order(Base):
    __tablename__ = "orders"
    customer_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("customers.id"), primary_key=True)
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    total: orm.Mapped[decimal.Decimal | None] = orm.mapped_column(sa.Numeric(10, 2))
    customer: orm.Mapped[Customer] = orm.relationship(back_populates="orders")


class Note(Base):
    __tablename__ = "notes"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    body: orm.Mapped[str | None] = orm.mapped_column(sa.Text)


notes = Note.__table__
parts = []


def part(body):
    """One part of the script, on an engine of its own."""
    parts.append(body)


def run(body, url):
    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=2, max_overflow=0)
    try:
        body(engine)
    except Exception as e:
        say("FAILED " + body.__name__, type(e).__name__, str(e).splitlines()[:1])
    finally:
        engine.dispose()


@part
def reflection(engine):
    found = sa.inspect(engine)
    say("tables", sorted(found.get_table_names()))
    say("columns", [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns("orders")])
    say("key", found.get_pk_constraint("orders")["constrained_columns"], found.get_indexes("orders"), found.has_table("nobody"))
    say("schema", found.default_schema_name, "public" in found.get_schema_names())


@part
def core(engine):
    with engine.begin() as conn:
        conn.execute(sa.delete(notes))
        say("many", conn.execute(sa.insert(notes).returning(notes.c.id), [{"id": i, "body": f"note {i}"} for i in range(1, 6)]).scalars().all())
        conn.execute(sa.insert(notes), [{"id": i, "body": "žluťoučký 🐎 %s :x"} for i in range(6, 9)])
    with engine.connect() as conn:
        say("select", conn.execute(sa.select(notes).where(notes.c.id.in_([1, 7])).order_by(notes.c.id)).all())
        say("text", conn.execute(sa.text("select cast(:a as int) + 1, cast(:b as text)"), {"a": 41, "b": "x"}).one())
        say("update", conn.execute(sa.update(notes).where(notes.c.id == 1).values(body="new").returning(notes.c.body)).scalar_one())
        conn.rollback()
        say("rolled back", conn.scalar(sa.select(notes.c.body).where(notes.c.id == 1)))
        nested = conn.begin_nested()
        conn.execute(sa.delete(notes))
        nested.rollback()
        say("savepoint", conn.scalar(sa.select(sa.func.count()).select_from(notes)))
        conn.commit()
    with engine.connect() as conn:
        fails("duplicate", lambda: conn.execute(sa.insert(notes).values(id=1)))
        fails("aborted", lambda: conn.execute(sa.select(notes)))
        conn.rollback()
        say("after", conn.scalar(sa.select(sa.literal(5))))


@part
def isolation(engine):
    for level in ["AUTOCOMMIT", "SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"]:
        with engine.connect().execution_options(isolation_level=level) as conn:
            say(level, conn.scalar(sa.text("show transaction_isolation")), conn.get_isolation_level())
    with engine.connect() as conn:
        say("default", conn.scalar(sa.text("show transaction_isolation")))
    with engine.connect().execution_options(postgresql_readonly=True, isolation_level="SERIALIZABLE") as conn:
        fails("read only", lambda: conn.execute(sa.delete(notes)))


@part
def cursors(engine):
    with engine.connect().execution_options(stream_results=True, max_row_buffer=10) as conn:
        rows = conn.execute(sa.text("select i, repeat('x', i) from generate_series(1, 100) i"))
        say("streamed", sum(len(r[1]) for r in rows))
        rows = conn.execute(sa.text("select i from generate_series(1, 25) i")).yield_per(10)
        say("partitions", [len(p) for p in rows.partitions()])
        rows = conn.execute(sa.text("select i from generate_series(1, 25) i"))
        say("some", rows.fetchmany(3))
        rows.close()
        say("goes on", conn.scalar(sa.select(sa.literal(1))))


@part
def session(engine):
    with orm.Session(engine) as s:
        s.execute(sa.delete(Customer).where(Customer.id == 42))
        s.execute(sa.delete(Order).where(Order.customer_id == 42))
        s.commit()
        c = Customer(id=42, name="Tim")
        c.orders = [Order(id=1, total=decimal.Decimal("9.50")), Order(id=2)]
        s.add(c)
        s.commit()
        say("refreshed", c.name, [(o.id, o.total) for o in c.orders])
        c.name = "Tom"
        c.orders[1].total = 3
        s.flush()
        s.rollback()
        say("rolled back", c.name, c.orders[1].total)
    with orm.Session(engine, expire_on_commit=False) as s:
        c = s.get(Customer, 42, options=[orm.selectinload(Customer.orders)])
        say("loaded", c.name, len(c.orders))
        say("joined", s.execute(sa.select(Customer.name, Order.id).join(Order).where(Customer.id == 42, Order.customer_id == 42).order_by(Order.id)).all())
        say("locked", s.scalars(sa.select(Order).where(Order.customer_id == 42, Order.id == 1).with_for_update()).one().total)
        with s.begin_nested():
            s.add(Order(customer_id=42, id=3))
        try:
            with s.begin_nested():
                s.add(Order(customer_id=42, id=1, total=1))
        except sa.exc.IntegrityError as e:
            say("savepoint", type(e.orig).__name__)
        s.commit()
        say("count", s.scalar(sa.select(sa.func.count()).select_from(Order).where(Order.customer_id == 42)))
        s.delete(s.get(Order, (42, 3)))
        s.commit()
        say("deleted", s.get(Order, (42, 3)))


@part
def ping(engine):
    """A connection that is dead is noticed before it is used."""
    with engine.connect() as conn:
        conn.execute(sa.text("set work_mem = '5MB'"))
        conn.commit()
        conn.connection.dbapi_connection.close()
        conn.invalidate()
    with engine.connect() as conn:
        say("again", conn.scalar(sa.select(sa.literal(1))), conn.scalar(sa.text("show work_mem")))
    raw = engine.raw_connection()
    dead = raw.dbapi_connection
    raw.close()
    dead.close()
    with engine.connect() as conn:
        say("and again", conn.scalar(sa.select(sa.literal(2))))


@part
def threads(engine):
    """More threads than the pool has connections."""
    got, lock = [], threading.Lock()

    def work(i):
        for j in range(10):
            with engine.connect() as conn:
                value = conn.scalar(sa.text("select :i * 100 + :j"), {"i": i, "j": j})
            with lock:
                got.append(value)

    running = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    say("threads", sorted(got) == sorted(i * 100 + j for i in range(6) for j in range(10)))


@part
def ended(engine):
    """A server process that ends under the pool: the statement fails, and the pool goes on."""
    with engine.connect() as conn:
        try:
            conn.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))
            say("ended", "no error")
        except sa.exc.DBAPIError:
            say("ended", "an error")
    with engine.connect() as conn:
        say("again", conn.scalar(sa.text("select :v"), {"v": 7}))


for driver in ["psycopg2", "psycopg"]:
    for p in parts:
        run(p, dsn.replace("postgres://", f"postgresql+{driver}://", 1))
