package router

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadCode(t *testing.T) {
	type code struct {
		leaves   Flags
		settings []string
	}
	for _, tt := range []struct {
		text string
		want code
	}{
		{"begin return 1; end", code{}},
		{"update t set a = b where c", code{}},
		{"begin perform set_config('App.user', new.id::text, true); end", code{}}, // gone with the transaction
		{"begin perform set_config(a_name, a_value, true); end", code{leaves: Restates | Resets}},
		{"select set_config('App.user', $1, false)", code{leaves: Dirty, settings: []string{"app.user"}}},
		{"select pg_catalog.SET_CONFIG ( 'work_mem', '1MB', false)", code{leaves: Dirty}},
		{"select set_config('app.' || $1, $2, false)", code{leaves: Dirty | Opaque | Restates | Resets}},
		{"select set_config($1, $2, $3)", code{leaves: Dirty | Opaque | Restates | Resets}},
		{"begin set app.x = 1; set local app.y = 2; SET SESSION app.z TO 'a'; end", code{leaves: Dirty, settings: []string{"app.x", "app.z"}}},
		{"begin execute format('set %I = %L', a, b); end", code{leaves: Dirty | Opaque | Executes | Restates | Resets}},
		{"begin execute 'truncate ' || a; end", code{leaves: Executes | Restates | Resets}},
		{"plpy.Execute('select 1')", code{leaves: Executes | Restates | Resets}},
		{"my $r = spi_exec_query($_[0]);", code{leaves: Executes | Restates | Resets}},
		{"begin execute 'deallocate p'; end", code{leaves: Dirty | Executes | Restates | Resets}},
		{"begin prepare p as select 1; end", code{leaves: Dirty | Executes | Restates | Resets}},
		{"begin perform set_config('search_path', new.tenant, true); end", code{leaves: Restates}},
		{"begin -- for now\n set local /* of all */ search_path to x; end", code{leaves: Dirty | Restates}},
		{"begin set local role app; end", code{leaves: Dirty | Restates}},
		{"begin set session session authorization app; end", code{leaves: Dirty | Restates}},
		{"begin set schema 'x'; end", code{leaves: Dirty | Restates}},
		{"begin set role none; end", code{leaves: Dirty | Restates}},
		{"begin set role none; perform set_config(a_name, a_value, false); end", code{leaves: Dirty | Opaque | Restates | Resets}},
		{"begin set role to default; end", code{leaves: Dirty | Restates | Resets}},
		{"begin reset all; end", code{leaves: Dirty | Restates | Resets}},
		{"begin set work_mem = '1MB'; end", code{leaves: Dirty}},
		{"begin execute $x$ set search_path to x $x$; end", code{leaves: Dirty | Executes | Restates | Resets}},
		{"select prepared, executed from jobs", code{}},
		{"begin create temp table x (a int); end", code{leaves: Dirty}},
		{"begin perform pg_advisory_xact_lock(1); end", code{}},
		{"begin perform pg_try_advisory_lock(1); end", code{leaves: Dirty}},
		{"begin perform SetSeed (0.5); end", code{leaves: Dirty | Keeps}},
		{"begin set session seed to 0.5; end", code{leaves: Dirty | Keeps}},
		{"select public.dblink_connect_u('a', 'b')", code{leaves: Dirty | Keeps}},
		{"select from dblink('host=a', 'select 1') x(a int)", code{}},
		{"begin load 'auto_explain'; end", code{leaves: Dirty | Keeps}},
		{"$_SHARED{user} = shift; return;", code{leaves: Dirty | Keeps}},
		{"if 'plan' in SD: return SD['plan']", code{leaves: Dirty | Keeps}},
		{"select seed, setseedling from plants where state in ('SD', 'GD')", code{}},
	} {
		var got code
		got.leaves, got.settings = read(tt.text)
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(code{})); d != "" {
			t.Errorf("%s: %s", tt.text, d)
		}
	}
}
