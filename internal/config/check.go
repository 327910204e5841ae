package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/sharding"
)

// check fills in the defaults that depend on other keys, and finds what is wrong between keys. Paths that are empty because their own
// value was wrong have been reported already and are passed over.
func (d *decoder) check(c *Config) {
	if c.Database.ServerName == "" {
		c.Database.ServerName = c.Database.Name
	}
	if (c.Database.Cert == "") != (c.Database.Key == "") {
		d.addAt("database", "found one of cert and key; expected both or neither")
	}
	if c.Pool.MinIdle > c.Pool.Size && c.Pool.Size > 0 {
		d.addAt("pool.min_idle", "%d is more than pool.size, %d", c.Pool.MinIdle, c.Pool.Size)
	}
	if n := c.Clients.MessageMemory; n > 0 && n < 2*c.Clients.MaxMessage {
		d.addAt("clients.message_memory", "it is less than twice clients.max_message, which is %d bytes", c.Clients.MaxMessage)
	}
	if c.Database.Name == proxy.AdminDatabase && len(c.Admin.Users)+len(c.Admin.StatsUsers) > 0 {
		d.addAt("database.name", "%q is the admin database's name; choose another one, or leave out admin.users and admin.stats_users", proxy.AdminDatabase)
	}
	d.checkUnixSocket(c)
	d.checkUsers(c)
	d.checkAuth(c)
	d.checkShards(c)
	d.checkTables(c)
	d.checkCapture(c)
	d.checkViews(c)
	d.checkTracing(c)
	if len(d.problems) == 0 { // the packages' own rules, should they know more than this one
		if _, err := c.ShardMap(); err != nil {
			d.addAt("sharding", "%v", err)
		}
	}
}

func (d *decoder) checkUsers(c *Config) {
	users := c.Users
	if len(users) == 0 && !d.present("auth.query") {
		if d.present("users") {
			d.addAt("users", "it is empty; expected at least one user, or nobody can connect")
		} else {
			d.addAt("users", "it is missing; expected a list of who may connect, or auth.query to find them")
		}
	}
	names := map[string]string{}
	for i, u := range users {
		path := fmt.Sprintf("users[%d]", i)
		d.unique(names, u.Name, path)
		hasPassword, hasSCRAM, hasMD5 := d.present(path+".password"), d.present(path+".scram"), d.present(path+".md5")
		switch {
		case hasPassword && hasSCRAM:
			d.addAt(path+".scram", "found password and scram; expected one of them")
		case (hasPassword || hasSCRAM) && hasMD5:
			d.addAt(path+".md5", "found another secret too; expected one of them")
		case !hasPassword && !hasSCRAM && !hasMD5 && !c.Auth.takes(proxy.MethodCert, proxy.MethodPeer, proxy.MethodTrust):
			d.addAt(path, "it has no secret; expected a password, scram or md5, or a rule of method cert, peer or trust in auth.rules")
		case hasMD5 && !proxy.IsMD5(u.MD5.Reveal()):
			d.addAt(path+".md5", "it is not an MD5 hash; expected md5 and 32 hexadecimal digits, as in pg_authid.rolpassword")
		case hasMD5 && !c.Auth.takes(proxy.MethodMD5, proxy.MethodPassword):
			d.addAt(path+".md5", "SCRAM cannot check it; expected a rule of method md5 or password in auth.rules")
		case hasPassword && u.Password.Empty():
			d.addAt(path+".password", "it is empty; expected a password")
		case hasSCRAM:
			if _, err := wire.ParseVerifier(u.SCRAM.Reveal()); err != nil {
				d.addAt(path+".scram", "it is not a verifier; expected SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>, as in pg_authid.rolpassword")
			}
		}
	}
	if !d.present("auth.query") {
		d.knownUsers(names, c.Admin.Users, "admin.users")
		d.knownUsers(names, c.Admin.StatsUsers, "admin.stats_users")
	}
}

// knownUsers finds those of list who cannot log in.
func (d *decoder) knownUsers(names map[string]string, list []string, path string) {
	for i, u := range list {
		if _, ok := names[u]; !ok && u != "" {
			d.addAt(fmt.Sprintf("%s[%d]", path, i), "no user is called %q; expected a name from users", u)
		}
	}
}

func (d *decoder) checkTables(c *Config) {
	if c.Sharding.DefaultShard == "" && len(c.Shards) > 0 {
		c.Sharding.DefaultShard = c.Shards[0].Name
	} else {
		d.knownShard(c, c.Sharding.DefaultShard, "sharding.default_shard")
	}
	names := map[string]string{}
	for i := range c.Sharding.Tables {
		t := &c.Sharding.Tables[i]
		path := "sharding.tables." + t.Name
		if err := checkTableName(t.Name); err != nil {
			d.addAt(path, "%v", err)
		}
		d.uniqueAt(names, qualified(t.Name), path, true)
		switch {
		case t.Reference:
		case t.Key != "" && t.Shard != "":
			d.addAt(path, "found key and shard; expected key for a sharded table, or shard for one that lives on a single shard")
		case t.Key == "" && t.Shard == "" && !d.present(path+".key") && !d.present(path+".shard") && d.isSection(path):
			d.addAt(path, "expected the word reference, a key column as in {key: customer_id}, or the one shard as in {shard: %s}", c.Sharding.DefaultShard)
		case t.Shard != "" && t.Type != 0:
			d.addAt(path+".type", "a type without a key; expected key: COLUMN beside it")
		}
		if t.Key != "" && t.Type == 0 && !d.present(path+".type") {
			t.Type = sharding.Int8
		}
		if t.Shard != "" {
			d.knownShard(c, t.Shard, path+".shard")
		}
	}
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

var indexName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,254}$`)

func (d *decoder) knownShard(c *Config, name, path string) {
	var names []string
	for _, s := range c.Shards {
		names = append(names, s.Name)
	}
	if name != "" && len(names) > 0 && !slices.Contains(names, name) {
		d.addAt(path, "there is no shard %q%s; expected %s", name, didYouMean(name, names), oneOf(names))
	}
}

// unique requires that name is new among names; path is its owner's, and path.name where it stands.
func (d *decoder) unique(names map[string]string, name, path string) {
	d.uniqueAt(names, name, path+".name", name != "")
}

func (d *decoder) uniqueAt(names map[string]string, name, path string, valid bool) {
	if !valid {
		return
	}
	if first, taken := names[name]; taken {
		d.addAt(path, "%s is given already by %s; expected each once", name, first)
		return
	}
	names[name] = path
}

func (d *decoder) present(path string) bool { _, ok := d.at[path]; return ok }

// isSection says whether the path was given as a mapping; another form has been reported.
func (d *decoder) isSection(path string) bool {
	n, ok := d.at[path]
	return ok && n.Kind == yaml.MappingNode
}

// qualified is a table's name with its schema, which is public unless given.
func qualified(name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return "public." + name
}
