package router

import "fmt"

// Path is the search_path that a role begins with: by ALTER ROLE, ALTER DATABASE, both, or the servers' configuration.
type Path struct {
	Role     string // empty: all
	Database bool   // in this database; else in all
	Value    string // as SHOW prints it
}

// pathsQuery: role, whether it is for this database, value. The first row is who asks, with what that one begins with itself.
const pathsQuery = `
SELECT session_user, NULL, (SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path')
UNION ALL
SELECT coalesce(r.rolname, ''), s.setdatabase <> 0, substr(c, 13)
FROM pg_catalog.pg_db_role_setting s
CROSS JOIN unnest(s.setconfig) c
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
WHERE c LIKE 'search\_path=%' AND (s.setdatabase = 0 OR d.datname = current_database()) AND (s.setrole = 0 OR r.rolname IS NOT NULL)`

// readPaths reads the paths, and finds out what a role begins with for which there is none.
func readPaths(answers Answers) (paths []Path, err error) {
	var reader, own string
	err = answers(func(row [][]byte) error {
		if len(row) != 3 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		if row[1] == nil {
			reader, own = string(row[0]), string(row[2])
			return nil
		}
		paths = append(paths, Path{Role: string(row[0]), Database: yes(row[1]), Value: string(row[2])})
		return nil
	})
	if err == nil && pathOf(paths, reader) == "" { // else it hides that of the configuration
		paths = append(paths, Path{Value: own})
	}
	return paths, err
}

// SearchPath is what a role that logs in begins with, as SHOW prints it.
func (r *Router) SearchPath(role string) string {
	if p := pathOf(r.paths, role); p != "" {
		return p
	}
	return defaultPath
}

// defaultPath is PostgreSQL's.
const defaultPath = `"$user", public`

// Paths are the catalog's.
func (r *Router) Paths() []Path { return r.paths }

// pathOf follows process_settings (postinit.c): a role's in the database, else the role's, else the database's, else all's.
func pathOf(paths []Path, role string) (value string) {
	best := 0
	for _, p := range paths {
		rank := 1
		if p.Database {
			rank = 2
		}
		switch p.Role {
		case "":
		case role:
			rank += 2
		default:
			continue
		}
		if rank > best {
			best, value = rank, p.Value
		}
	}
	return value
}
