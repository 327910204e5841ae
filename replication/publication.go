package replication

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// publishGeneratedVersion is the first server that can publish stored generated columns.
const publishGeneratedVersion = 180000

// ensurePublication makes the publication hold exactly the given tables and tidemark.epoch. While a slot uses it (mustHave), a
// table that is missing from it is a gap already and is reported instead of added.
func ensurePublication(ctx context.Context, conn *pgx.Conn, name string, tables []*table, version int, mustHave bool) (gap string, err error) {
	id := pgx.Identifier{name}.Sanitize()
	want := map[string]string{ownSchema + "." + epochTable: "ONLY " + pgx.Identifier{ownSchema, epochTable}.Sanitize()}
	for _, t := range tables {
		spec := t.quoted()
		if !t.partitioned {
			spec = "ONLY " + spec // not what inherits from it
		}
		want[t.String()] = spec
	}
	options := "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
	if version >= publishGeneratedVersion {
		options += ", publish_generated_columns = stored"
	}

	var exists, intact bool
	err = conn.QueryRow(ctx, `SELECT count(*) = 1, coalesce(bool_and(pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot AND NOT puballtables
			AND coalesce(to_jsonb(p)->>'pubgencols', 's') = 's'), false)
		FROM pg_publication p WHERE pubname = $1`, name).Scan(&exists, &intact)
	if err != nil {
		return "", fmt.Errorf("read publication %s: %w", name, err)
	}
	if !exists {
		if mustHave {
			return fmt.Sprintf("publication %s has vanished", name), nil
		}
		if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (%s)", id, strings.Join(sortedValues(want), ", "), options)); err != nil {
			return "", fmt.Errorf("create publication %s: %w", name, err)
		}
		return "", nil
	}

	rows, err := conn.Query(ctx, `SELECT n.nspname || '.' || c.relname, r.prqual IS NOT NULL OR r.prattrs IS NOT NULL
		FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1`, name)
	if err != nil {
		return "", fmt.Errorf("read publication %s: %w", name, err)
	}
	have := map[string]bool{} // -> has a row filter or column list
	var rel string
	var filtered bool
	_, err = pgx.ForEachRow(rows, []any{&rel, &filtered}, func() error { have[rel] = filtered; return nil })
	if err != nil {
		return "", fmt.Errorf("read publication %s: %w", name, err)
	}
	same := intact && len(have) == len(want)
	for t := range want {
		filtered, ok := have[t]
		if mustHave && (!ok || filtered) {
			return fmt.Sprintf("publication %s no longer holds all of table %s", name, t), nil
		}
		same = same && ok && !filtered
	}
	if same {
		return "", nil
	}
	if mustHave && !intact {
		return fmt.Sprintf("publication %s no longer publishes every kind of change", name), nil
	}
	for _, sql := range []string{
		fmt.Sprintf("ALTER PUBLICATION %s SET TABLE %s", id, strings.Join(sortedValues(want), ", ")),
		fmt.Sprintf("ALTER PUBLICATION %s SET (%s)", id, options),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("alter publication %s: %w", name, err)
		}
	}
	return "", nil
}

func sortedValues(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}
