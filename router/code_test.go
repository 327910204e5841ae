package router

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadCode(t *testing.T) {
	for _, tt := range []struct {
		text string
		want code
	}{
		{"begin return 1; end", code{}},
		{"update t set a = b where c", code{}},
		{"begin perform set_config('App.user', new.id::text, true); end", code{}}, // gone with the transaction
		{"begin perform set_config(a_name, a_value, true); end", code{}},
		{"select set_config('App.user', $1, false)", code{traces: true, settings: []string{"app.user"}}},
		{"select pg_catalog.SET_CONFIG ( 'work_mem', '1MB', false)", code{traces: true}},
		{"select set_config($1, $2, $3)", code{traces: true, opaque: true}},
		{"begin set app.x = 1; set local app.y = 2; SET SESSION app.z TO 'a'; end", code{traces: true, settings: []string{"app.x", "app.z"}}},
		{"begin execute format('set %I = %L', a, b); end", code{traces: true, opaque: true, executes: true}},
		{"begin execute 'truncate ' || a; end", code{executes: true}},
		{"plpy.Execute('select 1')", code{executes: true}},
		{"my $r = spi_exec_query($_[0]);", code{executes: true}},
		{"begin execute 'deallocate p'; end", code{traces: true, executes: true}},
		{"begin prepare p as select 1; end", code{traces: true, executes: true}},
		{"select prepared, executed from jobs", code{}},
		{"begin create temp table x (a int); end", code{traces: true}},
		{"begin perform pg_advisory_xact_lock(1); end", code{}},
		{"begin perform pg_try_advisory_lock(1); end", code{traces: true}},
		{"begin perform SetSeed (0.5); end", code{traces: true, keeps: true}},
		{"begin set session seed to 0.5; end", code{traces: true, keeps: true}},
		{"select public.dblink_connect_u('a', 'b')", code{traces: true, keeps: true}},
		{"select from dblink('host=a', 'select 1') x(a int)", code{}},
		{"begin load 'auto_explain'; end", code{traces: true, keeps: true}},
		{"$_SHARED{user} = shift; return;", code{traces: true, keeps: true}},
		{"if 'plan' in SD: return SD['plan']", code{traces: true, keeps: true}},
		{"select seed, setseedling from plants where state in ('SD', 'GD')", code{}},
	} {
		if d := cmp.Diff(tt.want, read(tt.text), cmp.AllowUnexported(code{})); d != "" {
			t.Errorf("%s: %s", tt.text, d)
		}
	}
}
