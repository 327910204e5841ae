package router

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tidemarkdb/tidemark/sharding"
)

// shop is the map of the demo, with what the other rules need beside it.
func shop(t testing.TB, shards int) *sharding.Map {
	t.Helper()
	d := sharding.Definition{Version: 1, Tables: []sharding.Table{
		{Name: "customers", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8},
		{Name: "orders", Kind: sharding.Sharded, Column: "customer_id", Type: sharding.Int8},
		{Name: "order_lines", Kind: sharding.Sharded, Column: "customer_id", Type: sharding.Int8},
		{Name: "small", Kind: sharding.Sharded, Column: "k", Type: sharding.Int4},
		{Name: "accounts", Kind: sharding.Sharded, Column: "email", Type: sharding.Text},
		{Name: "devices", Kind: sharding.Sharded, Column: "id", Type: sharding.UUID},
		{Name: "ledger", Kind: sharding.Sharded, Column: "amount", Type: sharding.Numeric},
		{Name: "days", Kind: sharding.Sharded, Column: "day", Type: sharding.Date},
		{Name: "wrong", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8},
		{Name: "sloppy", Kind: sharding.Sharded, Column: "name", Type: sharding.Text},
		{Name: "rounded", Kind: sharding.Sharded, Column: "n", Type: sharding.Numeric},
		{Name: "visits", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8},
		{Name: "products", Kind: sharding.Reference},
		{Name: "countries", Kind: sharding.Reference},
		{Name: "rates", Kind: sharding.Reference},
		{Name: "stock", Kind: sharding.Reference},
		{Name: "audit", Kind: sharding.Local, Shard: "s2"},
	}}
	if shards == 1 {
		d.Tables[len(d.Tables)-1].Shard = "s1"
	}
	for i := range shards {
		d.Shards = append(d.Shards, sharding.Shard{Name: fmt.Sprintf("s%d", i+1), Buckets: []sharding.Range{{First: 4096 * i / shards, Last: 4096*(i+1)/shards - 1}}})
	}
	m, err := sharding.New(d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func table(schema, name string, columns ...string) Table {
	oids := map[string]uint32{"int2": 21, "int4": 23, "int8": 20, "text": 25, "uuid": 2950, "numeric": 1700, "date": 1082, "timestamptz": 1184, "bool": 16, "varchar": 1043, "citext": 99999}
	t := Table{Schema: schema, Name: name}
	for _, c := range columns {
		f := strings.Fields(c)
		col := Column{Name: f[0], OID: oids[f[1]], TypeMod: -1, Deterministic: true}
		for _, x := range f[2:] {
			switch x {
			case "volatile":
				col.Default, col.Volatile = true, true
			case "generated":
				col.Default, col.Generated = true, true
			case "loose":
				col.Deterministic = false
			default:
				n, err := strconv.Atoi(x)
				if err != nil {
					panic(err)
				}
				col.TypeMod = int32(n)
			}
		}
		t.Columns = append(t.Columns, col)
	}
	return t
}

func shopCatalog() *Catalog {
	c := &Catalog{
		Tables: []Table{
			table("public", "customers", "id int8", "name text", "city text", "created_at timestamptz volatile"),
			table("public", "orders", "customer_id int8", "id int8 volatile", "state text", "total numeric", "product_id int8"),
			table("public", "order_lines", "customer_id int8", "order_id int8", "line int4", "product_id int8", "qty int4"),
			table("public", "small", "k int4", "v text"),
			table("public", "accounts", "email varchar 24", "name text"),
			table("public", "devices", "id uuid", "name text"),
			table("public", "ledger", "amount numeric", "note text"),
			table("public", "days", "day date", "note text"),
			table("public", "wrong", "id text"),
			table("public", "sloppy", "name text loose"),
			table("public", "rounded", "n numeric 655366"),
			table("public", "products", "id int8", "name text", "price numeric", "changed timestamptz volatile"),
			table("public", "countries", "code text", "name text"),
			running(table("public", "audit", "id int8", "what text"), "audits", Writing),
			table("public", "notes", "id int8 volatile", "body text"),
			running(table("public", "visits", "id int8", "page text"), "raise_prices", Writing),
			running(table("public", "inbox", "id int8", "body text"), "place_order", Writing),
			running(table("public", "currencies", "code text"), "prices", Writing),
			running(table("public", "rates", "code text", "rate numeric"), "takes_note", Writing),
			running(table("public", "stock", "id int8", "n int4"), "raise_prices", Writing),
			running(table("public", "counted", "n int8"), "counts_orders", Reading),
			running(table("public", "errands", "id int8"), "delegates", Writing),
			running(table("public", "drafts", "id int8"), "place_order", Truncating),
			uses(table("public", "order_counts", "n int8"), Writing, Use{Schema: "public", Name: "orders"}),
			uses(table("public", "order_totals", "customer_id int8", "total numeric"), Reading, Use{Schema: "public", Name: "orders"}),
			table("app", "orders", "id int8", "body text"),
			partition("orders_2024", "orders", "customer_id int8", "id int8 volatile", "state text", "total numeric", "product_id int8"),
		},
		Views: []View{
			{Schema: "public", Name: "order_totals", BaseTables: []Name{{"public", "orders"}}},
			{Schema: "public", Name: "price_list", BaseTables: []Name{{"public", "products"}}},
			{Schema: "public", Name: "note_list", BaseTables: []Name{{"public", "notes"}, {"public", "products"}}},
			{Schema: "public", Name: "dice", Volatile: true},
			{Schema: "public", Name: "counted"},
		},
		Models: []Model{
			{Name: "product_search", Columns: []ModelColumn{{"id", 20, -1}, {"name", 25, -1}, {"price", 1700, -1}, {"in_stock", 16, -1}}},
		},
	}
	add := func(v Volatility, user, agg bool, schema string, names ...string) {
		for _, n := range names {
			c.Functions = append(c.Functions, Function{Schema: schema, Name: n, Volatility: v, User: user, Aggregate: agg})
		}
	}
	add(Immutable, false, false, "pg_catalog", "lower", "abs", "generate_series", "length", "row_number", "date_trunc")
	add(Immutable, false, true, "pg_catalog", "count", "sum", "max", "min", "avg", "string_agg")
	add(Stable, false, false, "pg_catalog", "now", "current_setting", "txid_current", "pg_table_is_visible", "pg_listening_channels", "pg_my_temp_schema", "pg_backend_pid")
	add(Volatile, false, false, "pg_catalog", "random", "nextval", "setval", "currval", "lastval", "pg_sleep", "set_config", "setseed", "pg_advisory_lock",
		"pg_advisory_unlock", "pg_advisory_xact_lock", "pg_notify", "gen_random_uuid", "clock_timestamp", "lo_create", "pg_reload_conf")
	add(Immutable, true, false, "public", "full_name")
	add(Stable, true, false, "public", "customer_total")
	add(Volatile, true, false, "public", "do_things")
	reads := func(name string) Use { return Use{Name: name} }
	writes := func(name string) Use { return Use{Name: name, Way: Writing} }
	for name, uses := range map[string][]Use{
		"place_order": {writes("orders"), reads("products")}, "counts_orders": {reads("order_totals")}, "raise_prices": {writes("products")},
		"prices": {reads("products")}, "audits": {writes("audit")}, "takes_note": {writes("notes")},
		"delegates": {writes("inbox")}, "seeds": nil, "seeds_by_name": {reads("seeds")},
	} {
		f := Function{Schema: "public", Name: name, User: true, Volatility: Volatile, Code: Code{Names: uses}}
		if name == "counts_orders" {
			f.Volatility = Immutable
		}
		if name == "seeds" {
			f.Code.Leaves = Dirty | Keeps
		}
		c.Functions = append(c.Functions, f)
	}
	add(Stable, false, false, "pg_catalog", "mixed")
	add(Volatile, true, false, "public", "mixed")
	return c
}

// TestPlans runs the golden files: SQL in, plan out. Commands:
//
//	plan [shards=N] [path=a,b] [catalog=none]          a simple query
//	bind [oids=20,25] [formats=0,1] [values=(42,NULL)]  a Parse and Bind; values in hexadecimal after \x for binary
//	generic [oids=...]                                  a Parse alone
//	place                                               input: a COPY statement, then lines
func TestPlans(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		routers := map[string]*Router{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			shards, catalog, searchPath := 2, "shop", ""
			d.MaybeScanArgs(t, "shards", &shards)
			d.MaybeScanArgs(t, "catalog", &catalog)
			d.MaybeScanArgs(t, "path", &searchPath)
			key := fmt.Sprint(shards, catalog)
			r := routers[key]
			if r == nil {
				c := Config{Map: shop(t, shards)}
				if catalog == "shop" {
					c.Catalog = shopCatalog()
				}
				var err error
				if r, err = New(c); err != nil {
					t.Fatal(err)
				}
				routers[key] = r
			}
			ses, err := NewSession("alice", strings.ReplaceAll(searchPath, "+", ","), "UTF8", true)
			if err != nil {
				t.Fatal(err)
			}
			return runPlan(t, r, ses, d)
		})
	})
}

func runPlan(t *testing.T, r *Router, ses *Session, d *datadriven.TestData) string {
	var sc Scratch
	switch d.Cmd {
	case "plan":
		var b strings.Builder
		show := func(stmts []Statement) string {
			b.Reset()
			for _, s := range stmts {
				if len(stmts) > 1 {
					fmt.Fprintf(&b, "[%s]\n", d.Input[s.Start:s.End])
				}
				fmt.Fprintln(&b, s.Plan)
			}
			return b.String()
		}
		cold := show(r.Plan(&sc, ses, []byte(d.Input)))
		if stmts, ok := r.Cached(&sc, ses, []byte(d.Input)); ok {
			if warm := show(stmts); warm != cold {
				t.Errorf("%s: from the cache:\n%s\nwithout it:\n%s", d.Input, warm, cold)
			}
		}
		return cold
	case "bind", "generic":
		var oids []uint32
		for _, s := range argument(d, "oids") {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			oids = append(oids, uint32(n))
		}
		tmpl := r.Template(&sc, ses, []byte(d.Input), oids)
		if d.Cmd == "generic" {
			return fmt.Sprintf("%s\nfixed: %v, parameters: %v\n", tmpl.Generic(), tmpl.Fixed(), tmpl.Params())
		}
		var formats []int16
		for _, s := range argument(d, "formats") {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			formats = append(formats, int16(n))
		}
		var values [][]byte
		for _, s := range argument(d, "values") {
			switch {
			case s == "NULL":
				values = append(values, nil)
			case strings.HasPrefix(s, `\x`):
				var v []byte
				if _, err := fmt.Sscanf(s[2:], "%x", &v); err != nil {
					t.Fatal(err)
				}
				values = append(values, v)
			default:
				values = append(values, []byte(s))
			}
		}
		return tmpl.Bind(values, formats).String() + "\n"
	case "place":
		lines := strings.Split(d.Input, "\n")
		p := r.Plan(&sc, ses, []byte(lines[0]))[0].Plan
		if p.Copy == nil {
			return p.String() + "\n"
		}
		var b strings.Builder
		for _, line := range lines[1:] {
			line = strings.ReplaceAll(line, "<TAB>", "\t")
			shard, err := p.Copy.Place([]byte(line))
			if err != nil {
				fmt.Fprintf(&b, "%q: %v %v\n", line, err.(*Refusal).Code, err) //nolint:errorlint // Place promises it
				continue
			}
			fmt.Fprintf(&b, "%q: %s\n", line, r.Map().Shards()[shard].Name)
		}
		return b.String()
	}
	d.Fatalf(t, "unknown command %q", d.Cmd)
	return ""
}

func argument(d *datadriven.TestData, name string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == name {
			return a.Vals
		}
	}
	return nil
}

func partition(name, root string, columns ...string) Table {
	t := table("public", name, columns...)
	t.Root = Name{"public", root}
	return t
}

// running is a table that runs a function when it is used in one of some ways.
func running(t Table, function string, ways ...Way) Table {
	for _, way := range ways {
		t.Runs[way].Names = append(t.Runs[way].Names, Use{Name: function, Way: Calling})
	}
	return t
}

// uses is a table that uses something when it is used itself.
func uses(t Table, way Way, use ...Use) Table {
	t.Runs[way].Names = append(t.Runs[way].Names, use...)
	return t
}
