import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

/** pgjdbc with its switches; what it does is printed, so that two servers can be compared. */
public class Drivers {
    static String base, user, password;

    static void say(String name, Object... values) {
        StringBuilder b = new StringBuilder(name).append(":");
        for (Object v : values) b.append(' ').append(v instanceof byte[] x ? Arrays.toString(x) : String.valueOf(v));
        System.out.println(b);
    }

    interface Body { void run() throws Exception; }

    interface Part { void run(Connection c) throws Exception; }

    static void part(String name, String[] options, Part part) throws Exception {
        try (Connection c = connect(options)) {
            part.run(c);
        } catch (Exception e) {
            say("FAILED " + name, e.toString().lines().findFirst().get());
        }
    }

    static void fails(String name, Body body) throws Exception {
        try {
            body.run();
            say(name, "no error");
        } catch (BatchUpdateException e) {
            say(name, e.getSQLState(), Arrays.toString(e.getUpdateCounts()));
        } catch (SQLException e) {
            say(name, e.getSQLState(), e.getMessage().lines().findFirst().get());
        }
    }

    static Connection connect(String... options) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", user);
        p.setProperty("password", password);
        p.setProperty("sslmode", "disable");
        for (int i = 0; i < options.length; i += 2) p.setProperty(options[i], options[i + 1]);
        return DriverManager.getConnection(base, p);
    }

    static List<List<Object>> query(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
            List<List<Object>> rows = new ArrayList<>();
            try (ResultSet r = s.executeQuery()) {
                while (r.next()) {
                    List<Object> row = new ArrayList<>();
                    for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) row.add(r.getObject(i));
                    rows.add(row);
                }
            }
            return rows;
        }
    }

    static void values(Connection c) throws Exception {
        try (PreparedStatement s = c.prepareStatement("select ?::int2, ?::int8, ?::float8, ?::numeric, ?::text, ?::bool, ?::date, ?::timestamp, ?::uuid, ?::int4[], ?::bytea, ?::text")) {
            for (int round = 0; round < 7; round++) { // unnamed first, then named, then binary
                Object[] v = {(short) -7, 9007199254740993L, 1.5, new BigDecimal("123.4560"), "žluťoučký 🐎 \t\\", true, java.time.LocalDate.of(2024, 2, 29),
                    java.time.LocalDateTime.of(2024, 2, 29, 12, 34, 56), new UUID(0, 5), c.createArrayOf("int4", new Object[]{1, null, 3}), new byte[]{0, 1, -1}};
                for (int i = 0; i < v.length; i++) s.setObject(i + 1, v[i]);
                s.setNull(12, Types.VARCHAR);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    say("values " + round, r.getShort(1), r.getLong(2), r.getDouble(3), r.getBigDecimal(4), r.getString(5), r.getBoolean(6), r.getString(7), r.getString(8),
                        r.getString(9), r.getString(10), r.getBytes(11), r.getString(12));
                }
            }
        }
        try (Statement s = c.createStatement()) {
            boolean rows = s.execute("select 1; select 'two'; insert into notes values (900, 'n') on conflict do nothing");
            do {
                if (rows) {
                    s.getResultSet().next();
                    say("several", s.getResultSet().getString(1));
                } else say("several", s.getUpdateCount() >= 0);
                rows = s.getMoreResults();
            } while (rows || s.getUpdateCount() != -1);
        }
    }

    static void transactions(Connection c, int key) throws Exception {
        c.setAutoCommit(false);
        try (PreparedStatement in = c.prepareStatement("insert into customers values (?, ?)")) {
            in.setInt(1, key);
            in.setString(2, "one");
            say("inserted", in.executeUpdate());
            Savepoint a = c.setSavepoint("a");
            fails("duplicate", in::executeUpdate);
            fails("aborted", () -> query(c, "select 1"));
            c.rollback(a);
            c.commit();
        }
        say("committed", query(c, "select name from customers where id = ?", key));
        c.rollback();
        c.setAutoCommit(true);
        fails("syntax", () -> query(c, "selec 1"));
        fails("division", () -> query(c, "select 1/?::int", 0));
        fails("no table", () -> query(c, "select * from nowhere where id = ?", 1));
        c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        c.setReadOnly(true);
        c.setAutoCommit(false);
        say("isolation", query(c, "show transaction_isolation"), query(c, "show transaction_read_only"));
        c.rollback();
        c.setReadOnly(false);
        c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        c.setAutoCommit(true);
    }

    static void batches(Connection c, int key) throws Exception {
        try (PreparedStatement in = c.prepareStatement("insert into orders (customer_id, id, total) values (?, ?, ?)")) {
            for (int i = 0; i < 300; i++) {
                in.setInt(1, key);
                in.setInt(2, i);
                in.setBigDecimal(3, new BigDecimal("1.50"));
                in.addBatch();
            }
            say("batch", in.executeBatch().length);
            in.setInt(1, key);
            in.setInt(2, 1);
            in.setBigDecimal(3, BigDecimal.ONE);
            in.addBatch();
            fails("batch with a duplicate", in::executeBatch);
        }
        say("batched", query(c, "select count(*), sum(total) from orders where customer_id = ?", key));
        try (PreparedStatement in = c.prepareStatement("insert into notes values (?, ?) returning id", Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 3; i++) {
                in.setInt(1, key * 1000 + i);
                in.setString(2, "n");
                in.addBatch();
            }
            in.executeBatch();
            int n = 0;
            for (ResultSet r = in.getGeneratedKeys(); r.next(); ) n++;
            say("generated keys", n);
        }
    }

    static void fetchSize(Connection c) throws Exception {
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("select g, repeat('x', 100) from generate_series(1, ?) g")) {
            s.setFetchSize(50);
            for (int round = 0; round < 7; round++) {
                s.setInt(1, 220 + round);
                long sum = 0;
                try (ResultSet r = s.executeQuery()) {
                    while (r.next()) {
                        sum += r.getInt(1);
                        if (r.getRow() % 60 == 0) query(c, "select 1"); // another portal in between
                    }
                }
                say("fetched", sum);
            }
            s.setInt(1, 1000);
            try (ResultSet r = s.executeQuery()) {
                r.next();
            } // closed early
        }
        try (PreparedStatement s = c.prepareStatement("select id from orders where customer_id = ? order by id")) {
            s.setFetchSize(100);
            s.setInt(1, 7);
            int n = 0;
            for (ResultSet r = s.executeQuery(); r.next(); ) n++;
            say("by key", n);
        }
        try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
            ResultSet r = s.executeQuery("select id, body from notes where id = 900");
            r.first();
            r.updateString("body", "updated");
            r.updateRow();
            say("updatable", query(c, "select body from notes where id = 900"));
        }
        c.commit();
        c.setAutoCommit(true);
    }

    static void copies(Connection c, int from) throws Exception {
        CopyManager m = c.unwrap(PGConnection.class).getCopyAPI();
        say("copy in", m.copyIn("copy customers (id, name) from stdin", new StringReader(from + "\tten\n" + (from + 1) + "\televen\n")));
        say("copied", query(c, "select name from customers where id = ?", from + 1));
        fails("bad copy", () -> m.copyIn("copy notes from stdin", new StringReader("x\ty\n")));
        StringWriter out = new StringWriter();
        m.copyOut("copy (select g, repeat('x', g) from generate_series(1, 3) g) to stdout", out);
        say("copy out", out.toString().replace("\n", "|"));
    }

    static void cancels(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            ScheduledExecutorService later = Executors.newSingleThreadScheduledExecutor();
            later.schedule(() -> { s.cancel(); return null; }, 300, TimeUnit.MILLISECONDS);
            fails("cancelled", () -> s.execute("select pg_sleep(60)"));
            later.shutdown();
        }
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            fails("timed out", () -> s.execute("select pg_sleep(60)"));
        }
        say("after", query(c, "select 1"));
    }

    static void notifications(Connection c) throws Exception {
        try (Statement s = c.createStatement(); Connection other = connect(); Statement o = other.createStatement()) {
            s.execute("listen news");
            o.execute("notify news, 'číslo 1'");
            var heard = c.unwrap(PGConnection.class).getNotifications(10000);
            say("notified", heard.length, heard[0].getName(), heard[0].getParameter());
            s.execute("unlisten *");
        }
    }

    static void large(Connection c) throws Exception {
        String text = "ž".repeat(1 << 20);
        var row = query(c, "select ?::text, length(?::text)", text, text).get(0);
        say("large", row.get(0).equals(text), row.get(1));
        c.setAutoCommit(false);
        LargeObjectManager lo = c.unwrap(PGConnection.class).getLargeObjectAPI(); // FunctionCall messages
        long oid = lo.createLO();
        try (LargeObject o = lo.open(oid)) {
            o.write(new byte[300000]);
            o.seek(100);
            say("large object", o.tell(), o.size(), o.read(10).length);
        }
        lo.delete(oid);
        c.commit();
        c.setAutoCommit(true);
    }

    static void metadata(Connection c) throws Exception {
        DatabaseMetaData m = c.getMetaData();
        for (ResultSet r = m.getColumns(null, "public", "orders", "%"); r.next(); ) say("column", r.getString("COLUMN_NAME"), r.getString("TYPE_NAME"), r.getInt("COLUMN_SIZE"));
        for (ResultSet r = m.getPrimaryKeys(null, "public", "orders"); r.next(); ) say("key", r.getString("COLUMN_NAME"));
        for (ResultSet r = m.getTables(null, "public", "%", new String[]{"TABLE"}); r.next(); ) say("table", r.getString("TABLE_NAME"));
        c.setSchema("public");
        say("schema", c.getSchema(), c.isValid(5));
    }

    static void churn(Connection c) throws Exception {
        for (int i = 0; i < 300; i++) {
            if (((Number) query(c, "select ?::int + " + i, i).get(0).get(0)).intValue() != 2 * i) throw new Exception("churn " + i);
        }
        try (PreparedStatement s = c.prepareStatement("select name from customers where id = ?")) {
            for (int i = 0; i < 8; i++) {
                s.setInt(1, 1);
                ResultSet r = s.executeQuery();
                r.next();
                say("prepared", r.getString(1));
            }
        }
    }

    public static void main(String[] args) throws Exception {
        URI u = new URI(args[0]);
        user = u.getUserInfo().split(":")[0];
        password = u.getUserInfo().split(":")[1];
        base = "jdbc:postgresql://" + u.getHost() + ":" + u.getPort() + u.getPath();
        Locale.setDefault(Locale.ROOT);
        String[][] switches = {
            {"prepareThreshold", "5"},
            {"prepareThreshold", "1", "reWriteBatchedInserts", "true", "binaryTransfer", "true"},
            {"preferQueryMode", "simple"},
            {"prepareThreshold", "1", "autosave", "always", "defaultRowFetchSize", "10", "ApplicationName", "mine", "options", "-c work_mem=5MB"},
        };
        int key = 1;
        for (String[] options : switches) {
            say("--", String.join(" ", options));
            int k = key++;
            part("values", options, c -> values(c));
            part("transactions", options, c -> transactions(c, k));
            part("batches", options, c -> batches(c, 6 + k));
            part("fetch size", options, c -> fetchSize(c));
            part("copies", options, c -> copies(c, 100 * k));
            part("churn", options, c -> churn(c));
            part("settings", options, c -> say("settings", query(c, "show application_name"), query(c, "show work_mem")));
            if (k > 1) continue;
            part("cancels", options, c -> cancels(c));
            part("notifications", options, c -> notifications(c));
            part("large", options, c -> large(c));
            part("metadata", options, c -> metadata(c));
        }
    }
}
