package router

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// builtinsQuery: a print of all functions that PostgreSQL brings along, alone in its row; and, unless it is the given one, each of them:
// schema, name, volatility, aggregate, OID (NULL unless it is in leaving). There are thousands, and hardly ever is one altered; but
// superusers can.
//
// The print is of the versions of their rows, and of their schemas': who alters one makes another version of it, elsewhere or in another
// transaction (nearly all are as the first one, 1, has made them). It is NULL, and so never the given one, where one of them has been moved
// to a schema of the users' own.
var builtinsQuery = `
WITH versions(version, xid, schema) AS (
  SELECT ctid, xmin, pronamespace FROM pg_catalog.pg_proc WHERE oid < 16384
  UNION ALL
  SELECT ctid, xmin, oid FROM pg_catalog.pg_namespace WHERE oid < 16384
), print(print) AS MATERIALIZED (
  SELECT CASE WHEN max(schema) < 16384 THEN sum(pg_catalog.hashtidextended(version, CASE xid WHEN '1' THEN 1 ELSE xid::text::bigint END))::text END FROM versions
)
SELECT print, NULL, NULL, NULL, NULL FROM print
UNION ALL
SELECT n.nspname, p.proname, p.provolatile, p.prokind = 'a', CASE WHEN p.proname IN (` + literals(leaving) + `) THEN p.oid END
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid < 16384 AND ((SELECT print FROM print) = $1) IS NOT TRUE`

// functionsQuery: the same of each of the users' own.
const functionsQuery = `
SELECT n.nspname, p.proname, p.provolatile, p.prokind = 'a', p.oid
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid >= 16384`

// functions by name: overloads together, the most volatile one counting.
type functions struct {
	list []Function
	at   map[Name]int
}

// add adds one overload. user: of the users' own.
func (f *functions) add(row [][]byte, user bool) error {
	if len(row) != 5 || len(row[2]) != 1 {
		return fmt.Errorf("%d values in a row", len(row))
	}
	name := Name{string(row[0]), string(row[1])}
	at, ok := f.at[name]
	if !ok {
		at = len(f.list)
		f.at[name], f.list = at, append(f.list, Function{Schema: name.Schema, Name: name.Name, Volatility: Immutable})
	}
	all := &f.list[at]
	all.User, all.Aggregate = all.User || user, all.Aggregate || yes(row[3])
	if v := Volatility(row[2][0]); worse(v, all.Volatility) {
		all.Volatility = v
	}
	if row[4] != nil {
		oid, err := strconv.ParseUint(string(row[4]), 10, 32)
		if err != nil {
			return fmt.Errorf("OID of %s: %w", name, err)
		}
		all.OIDs = append(all.OIDs, uint32(oid))
	}
	return nil
}

// readFunctions reads PostgreSQL's own, as far as they have changed, and the users'.
func (r *Reader) readFunctions(c *Catalog, answers Answers) error {
	var print []byte
	own := functions{at: map[Name]int{}}
	err := answers(func(row [][]byte) error {
		if row[1] == nil {
			print = bytes.Clone(row[0])
			return nil
		}
		return own.add(row, false)
	})
	if err != nil {
		return err
	}
	if print == nil || !bytes.Equal(print, r.print) {
		r.print, r.builtins = print, own.list
	}
	users := functions{at: map[Name]int{}}
	err = answers(func(row [][]byte) error { return users.add(row, true) })
	c.Functions = append(slices.Clip(r.builtins), users.list...)
	return err
}
