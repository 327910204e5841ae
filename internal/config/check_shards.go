package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/sharding"
)

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
