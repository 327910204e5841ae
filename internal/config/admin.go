package config

// Admin says who may enter the admin database, tidemark.
type Admin struct {
	Users      []string
	StatsUsers []string
}

func (a *Admin) fields() []field {
	return []field{
		{key: "users", into: userNames(&a.Users), doc: "Users who may give commands there: `PAUSE`, `KILL`, `RELOAD` and the others of [admin.md](admin.md)."},
		{key: "stats_users", into: userNames(&a.StatsUsers), doc: "Users who may read its tables, by `SELECT` and `SHOW`."},
	}
}

func userNames(into *[]string) value {
	return texts(into, "user", "the name of a user", false, func(s string) error {
		if s == "" {
			return errEmpty
		}
		return nil
	})
}
