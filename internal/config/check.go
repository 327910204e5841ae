package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

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
	if c.Database.Name == proxy.AdminDatabase && len(c.Admin.Users)+len(c.Admin.StatsUsers) > 0 {
		d.addAt("database.name", "%q is the admin database's name; choose another one, or leave out admin.users and admin.stats_users", proxy.AdminDatabase)
	}
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
		case !hasPassword && !hasSCRAM && !hasMD5 && !c.Auth.takes(proxy.MethodCert, proxy.MethodTrust):
			d.addAt(path, "found neither password nor scram; expected one of them")
		case hasMD5 && !proxy.IsMD5(u.MD5.Reveal()):
			d.addAt(path+".md5", "it is not an MD5 hash; expected md5 and 32 hexadecimal digits, as in pg_authid.rolpassword")
		case hasMD5 && !c.Auth.takes(proxy.MethodMD5, proxy.MethodPassword):
			d.addAt(path+".md5", "SCRAM cannot check it; expected a rule of method md5 or password in auth.rules")
		case hasPassword && u.Password.Empty():
			d.addAt(path+".password", "it is empty; expected a password")
		case hasSCRAM && !wire.IsVerifier(u.SCRAM.Reveal()):
			d.addAt(path+".scram", "it is not a verifier; expected SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>, as in pg_authid.rolpassword")
		}
	}
}

func (d *decoder) checkShards(c *Config) {
	if len(c.Shards) == 0 && d.present("shards") {
		d.addAt("shards", "it is empty; expected at least one shard")
	}
	names, servers := map[string]string{}, map[string]string{}
	for i := range c.Shards {
		s, path := &c.Shards[i], fmt.Sprintf("shards[%d]", i)
		d.unique(names, s.Name, path)
		d.checkRoles(s, path)
		for e, at := range s.eachServer(path) {
			if e.Region == "" {
				e.Region = s.Region
			}
			switch {
			case e == s.Primary:
				e.Role = PrimaryRole
			case len(s.Replicas) > 0:
				e.Role = ReplicaRole
			}
			d.uniqueAt(servers, e.Address(), at, e.Host != "")
		}
	}
	if n := c.Sharding.Buckets; n > 0 && n&(n-1) != 0 {
		d.addAt("sharding.buckets", "%d is not a power of two; expected one such as 1024 or 4096", n)
	} else if n > 0 && len(c.Shards) > n {
		d.addAt("sharding.buckets", "%d buckets cannot be split over %d shards; expected at least one each", n, len(c.Shards))
	} else if n > 0 {
		d.assignBuckets(c)
	}
}

func (d *decoder) checkRoles(s *Shard, path string) {
	switch listed, named := len(s.Endpoints) > 0, s.Primary != nil || len(s.Replicas) > 0; {
	case listed && named:
		d.addAt(path+".endpoints", "found endpoints beside primary or replicas; expected either, endpoints being asked for their role")
	case !listed && s.Primary == nil && !d.present(path+".primary") && !d.present(path+".endpoints"):
		d.addAt(path, "it has no servers; expected primary: {host, port}, or endpoints")
	}
}

// eachServer yields every server of a shard with its path, for changing them in place.
func (s *Shard) eachServer(path string) func(yield func(*Endpoint, string) bool) {
	return func(yield func(*Endpoint, string) bool) {
		if s.Primary != nil && !yield(s.Primary, path+".primary") {
			return
		}
		for i := range s.Replicas {
			if !yield(&s.Replicas[i], fmt.Sprintf("%s.replicas[%d]", path, i)) {
				return
			}
		}
		for i := range s.Endpoints {
			if !yield(&s.Endpoints[i], fmt.Sprintf("%s.endpoints[%d]", path, i)) {
				return
			}
		}
	}
}

// assignBuckets fills in Ranges, from Buckets where given and evenly otherwise, and requires that they cover every bucket once.
func (d *decoder) assignBuckets(c *Config) {
	total := c.Sharding.Buckets
	given := 0
	for i := range c.Shards {
		if d.present(fmt.Sprintf("shards[%d].buckets", i)) {
			given++
		}
	}
	if given == 0 {
		for i := range c.Shards {
			first, next := i*total/len(c.Shards), (i+1)*total/len(c.Shards)
			c.Shards[i].Ranges = []sharding.Range{{First: first, Last: next - 1}}
		}
		return
	}
	owner := make([]int, total) // shard number + 1
	for i := range c.Shards {
		s, path := &c.Shards[i], fmt.Sprintf("shards[%d].buckets", i)
		if !d.present(path) {
			d.addAt(fmt.Sprintf("shards[%d]", i), "it has no buckets while other shards have; expected buckets for every shard or for none")
			return
		}
		ranges, err := parseBuckets(s.Buckets, total)
		if err != nil {
			d.addAt(path, "%v; expected ranges from 0 to %d, such as 0-%d", err, total-1, total/2-1)
			return
		}
		s.Ranges = ranges
		for _, r := range ranges {
			for b := r.First; b <= r.Last; b++ {
				if owner[b] != 0 {
					d.addAt(path, "bucket %d belongs to shard %s already; expected each bucket once", b, c.Shards[owner[b]-1].Name)
					return
				}
				owner[b] = i + 1
			}
		}
	}
	if first := slices.Index(owner, 0); first >= 0 {
		last := first
		for last+1 < total && owner[last+1] == 0 {
			last++
		}
		d.addAt("shards", "no shard owns the buckets from %d to %d; expected 0-%d to be covered without gaps", first, last, total-1)
	}
}

// parseBuckets reads "0-1023,3072-4095,7".
func parseBuckets(text string, total int) ([]sharding.Range, error) {
	var out []sharding.Range
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || first < 0 || first > last || last >= total {
			return nil, fmt.Errorf("%q is not a range of buckets", strings.TrimSpace(part))
		}
		out = append(out, sharding.Range{First: first, Last: last})
	}
	return out, nil
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

func (d *decoder) checkCapture(c *Config) {
	if s := c.Capture.Slot; s != "" && !slotName.MatchString(s) {
		d.addAt("capture.slot", "%q does not fit; expected lower-case letters, digits and underscores, at most 63", s)
	}
	names := map[string]string{}
	for i, t := range c.Capture.Tables {
		d.uniqueAt(names, qualified(t), fmt.Sprintf("capture.tables[%d]", i), true)
	}
	if !d.present("capture.tables") { // capture what views need
		for _, v := range c.Views {
			if v.From != "" && !c.captured(v.From) {
				c.Capture.Tables = append(c.Capture.Tables, v.From)
			}
		}
	}
	if len(c.Capture.Tables) > 0 && len(c.Kafka.Brokers) == 0 && !d.present("kafka.brokers") {
		d.addAt("kafka.brokers", "it is missing; expected the brokers that changes of the captured tables are published to")
	}
}

func (c *Config) captured(table string) bool {
	return slices.ContainsFunc(c.Capture.Tables, func(t string) bool { return qualified(t) == qualified(table) })
}

func (d *decoder) checkViews(c *Config) {
	names, places := map[string]string{}, map[string]string{}
	for _, t := range c.Sharding.Tables {
		names[qualified(t.Name)] = "sharding.tables." + t.Name
	}
	for i := range c.Views {
		v := &c.Views[i]
		path := "views." + v.Name
		d.uniqueAt(names, qualified(v.Name), path, true)
		if v.From != "" && !c.captured(v.From) {
			d.addAt(path+".from", "the table %s is not captured; expected one of capture.tables (%s), or add it there", v.From, strings.Join(c.Capture.Tables, ", "))
		}
		switch inElastic, inRedis := d.present(path+".elastic"), d.present(path+".redis"); {
		case inElastic && inRedis:
			d.addAt(path, "found elastic and redis; expected one of them, a view having one store")
		case inElastic && v.Elastic != nil:
			if v.Elastic.Index == "" {
				v.Elastic.Index = v.Name
			}
			d.checkIndex(v, path)
			d.uniqueAt(places, "index "+v.Elastic.Index, path, true)
			d.needs(len(c.Elasticsearch.Addresses) > 0, "elasticsearch.addresses", v.Name)
		case inRedis && v.Redis != nil:
			d.needs(c.Redis.Address != "", "redis.address", v.Name)
		case !inElastic && !inRedis && d.isSection(path):
			d.addAt(path, "found no store; expected elastic: {} or redis: {}")
		}
	}
}

var indexName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,254}$`)

func (d *decoder) checkIndex(v *View, path string) {
	if !indexName.MatchString(v.Elastic.Index) {
		d.addAt(path+".elastic.index", "%q is not an index name; expected lower-case letters, digits, and any of _ . - after the first", v.Elastic.Index)
	}
}

// needs reports, once, a connection that some view needs.
func (d *decoder) needs(ok bool, path, view string) {
	if !ok && !d.present(path) && !slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Key == path }) {
		d.addAt(path, "it is missing; the view %s is kept there", view)
	}
}

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
