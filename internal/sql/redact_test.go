package sql

import "testing"

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		`SELECT * FROM t WHERE a = 'secret' AND b = 42 AND c = 1.5e3`:   `SELECT * FROM t WHERE a = ? AND b = ? AND c = ?`,
		`SELECT E'a\'secret', $$secret$$, $x$secret$x$, B'1010', X'ff'`: `SELECT ?, ?, ?, ?, ?`,
		`SELECT U&'secret' UESCAPE '!', U&"name", "Name"`:               `SELECT ? UESCAPE ?, U&"name", "Name"`,
		`ALTER ROLE app PASSWORD 'secret'`:                              `ALTER ROLE app PASSWORD ?`,
		`SET app.token = 'secret'; SELECT 'secret'`:                     `SET app.token = ?;SELECT ?`,
		`DO $$ BEGIN PERFORM 'secret'; END $$`:                          `DO ?`,
		`COPY t FROM STDIN (DELIMITER '|') -- secret`:                   `COPY t FROM STDIN (DELIMITER ?)`,
		`SELECT $1 /*traceparent='00-secret',x='secret'*/`:              `SELECT $1`,
		`('secret')`:                  `(?)`,
		`SELECT 'unterminated secret`: ``,
		`PREPARE p (text) AS SELECT 'secret' WHERE $1 = 'secret'`: `PREPARE p (text) AS SELECT ? WHERE $1 = ?`,
		`EXECUTE p('secret', 7)`:                                  `EXECUTE p(?, ?)`,
		"SELECT 'secret'\n'secret', N'secret'":                    `SELECT ?, N?`,
	} {
		if got := string(Redact([]byte(text))); got != want {
			t.Errorf("Redact(%s) = %s, want %s", text, got, want)
		}
	}
}
