package router

import "github.com/tidemarkdb/tidemark/internal/sql"

// compiled is a planned statement that waits for values. It is immutable and shared.
type compiled struct {
	generic *Plan
	always  *Plan   // not nil: no value matters
	keys    []*key  // all must lead to one shard
	uses    []int   // how often each parameter occurs, by number
	params  int     // the greatest number of a parameter
	routes  []*Plan // by shard: what a key leads to; nil where a local table forbids the shard
	unkeyed *Plan   // when a key cannot be read: Scatter or Refuse
	refused *Plan   // when keys lead to different shards
	any     *Plan   // when no row can have the key (NULL)
	scan    *scanTemplate
	// settings are calls of set_config with parameters.
	settings []*sql.Setting
	args     []sql.Value // of an EXECUTE
	utf8     bool
	cost     int64
}

// planCost is about what a plan takes in memory, its strings included.
const planCost = 400

// compiled finishes an outcome: plans for all that its keys can lead to are made now, so that binding makes none.
func (s *statement) compiled(o outcome) *compiled {
	if len(o.keys) == 0 {
		return s.fixedPlan(o.unkeyed)
	}
	shards := len(s.r.m.Shards())
	c := &compiled{keys: o.keys, uses: s.f.Uses, params: s.f.Params, routes: make([]*Plan, shards), unkeyed: o.unkeyed, utf8: s.ses.utf8, cost: int64(shards+3) * planCost}
	for _, k := range o.keys {
		c.cost += int64(len(k.values)) * 120
	}
	block := make([]Plan, shards)
	reason := o.keys[0].rel + "." + o.keys[0].column
	for i := range block {
		if o.only >= 0 && o.only != i {
			continue
		}
		block[i] = Plan{Kind: Route, Access: o.access, Flags: o.flags, Shards: s.r.oneShard[i], Reason: "key " + reason}
		c.routes[i] = s.plan(&block[i])
	}
	c.refused = s.plan(&Plan{Kind: Refuse, Refusal: crossShard()})
	if o.only >= 0 {
		c.refused = s.plan(&Plan{Kind: Refuse, Refusal: refuse("rows of different shards in one statement are not supported", "The key leads to another shard, but "+o.reason+".", "Use one statement for each.")})
	}
	any := s.r.m.Default()
	if o.only >= 0 {
		any = o.only
	}
	c.any = c.routes[any]
	c.generic = s.plan(&Plan{Kind: Route, Access: o.access, Flags: o.flags, Shards: s.all(), Reason: "key " + reason})
	if o.only >= 0 {
		c.generic.Shards = s.r.oneShard[o.only]
	}
	return c
}

// bind is the plan for the values of src.
func (c *compiled) bind(src *source) *Plan {
	if c.always != nil {
		return c.always
	}
	if c.scan != nil {
		return c.scan.bind(src)
	}
	if c.settings != nil {
		return c.bindSettings(src)
	}
	if c.args != nil {
		return c.bindArgs(src)
	}
	src.utf8, src.uses = c.utf8, c.uses
	if len(c.keys) == 1 && len(c.keys[0].values) > 1 && !c.keys[0].stored {
		return c.bindList(src)
	}
	shard := -1
	for _, k := range c.keys {
		for i := range k.values {
			at, found := src.place(c.generic.shards, k, &k.values[i])
			switch found {
			case matchesNothing:
				if len(k.values) == 1 {
					continue
				}
			case unreadable:
				return c.withoutKey(src)
			case invalid:
				return c.fail(src.refusal)
			case placed:
				if shard >= 0 && shard != at {
					if c.unkeyed.Kind == Scatter {
						return c.unkeyed
					}
					return c.refused
				}
				shard = at
			}
		}
	}
	if shard < 0 {
		return c.any
	}
	if p := c.routes[shard]; p != nil {
		return p
	}
	return c.refused
}

// bindList is for a single IN list: one shard, or the shards that its values lead to.
func (c *compiled) bindList(src *source) *Plan {
	k := c.keys[0]
	shard, several := -1, false
	for i := range k.values {
		at, found := src.place(c.generic.shards, k, &k.values[i])
		switch found {
		case unreadable:
			return c.withoutKey(src)
		case invalid:
			return c.fail(src.refusal)
		case placed:
			several = several || shard >= 0 && shard != at
			shard = at
		}
	}
	switch {
	case shard < 0:
		return c.any
	case !several:
		if p := c.routes[shard]; p != nil {
			return p
		}
		return c.refused
	case c.unkeyed.Kind != Scatter && c.generic.Flags&Writes != 0:
		return c.refused
	case c.unkeyed.Kind != Scatter:
		return c.fail(listRefusal(c.unkeyed.Refusal))
	}
	p := *c.unkeyed
	taken := make([]bool, len(c.routes))
	for i := range k.values {
		if at, found := src.place(c.generic.shards, k, &k.values[i]); found == placed {
			taken[at] = true
		}
	}
	p.Shards = nil
	for at, yes := range taken {
		if yes {
			p.Shards = append(p.Shards, at)
		}
	}
	p.Reason = "keys " + k.rel + "." + k.column
	return &p
}

func listRefusal(r *Refusal) *Refusal {
	out := *r
	out.Detail = "The keys of the list are on different shards. " + out.Detail
	out.Hint = "Use one statement for each key."
	return &out
}

// withoutKey is the plan when a key cannot be read; a refusal then says why.
func (c *compiled) withoutKey(src *source) *Plan {
	if c.unkeyed.Kind != Refuse {
		return c.unkeyed
	}
	ref := *c.unkeyed.Refusal
	ref.Message, ref.Detail, ref.Hint = "the shard key of this statement cannot be read", src.why, "Write the key as a plain literal or parameter of the key's own type."
	return c.fail(&ref)
}

func (c *compiled) fail(ref *Refusal) *Plan {
	p := *c.refused
	p.Refusal = ref
	return &p
}
