package sql

import "testing"

func TestAtomicBody(t *testing.T) {
	for text, want := range map[string]bool{
		"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END":                                                      true,
		" /* a */ create or replace procedure s.p(begin int) begin -- x\n atomic; update t set a = 1; select 2; end ; ; ": true,
		"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN (CASE 1 WHEN 2 THEN 3 END) > 1 THEN 2 END; END;":   true,
		`CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 'end', "end", $$end$$ /* end */; SELECT 1; END`:              true,
		"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 2":                                            false,
		"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE; END":                                                   false,
		"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;":                                                          false,
		"CREATE FUNCTION f() RETURNS int RETURN 1; BEGIN ATOMIC; END":                                                     false,
		"CREATE FUNCTION f() RETURNS int AS 'BEGIN ATOMIC SELECT 1; END'":                                                 false,
		"CREATE TABLE t (a int); CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END":                                          false,
		"CREATE SCHEMA a CREATE TABLE function (begin int) begin atomic; end":                                             false,
		"SELECT begin atomic; end": false,
		"":                         false,
	} {
		if got := AtomicBody([]byte(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
