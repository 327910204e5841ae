package router

// Code runs code: a function names others, a write runs triggers, a trigger's function writes a table that has triggers, a view is read
// by its query. The catalog says what each names by itself; here it is followed once, when a Router is made, to what each does in all.

// does is what code does, by itself and by all that it runs, that matters to who runs it.
type does struct {
	leaves Flags // in the session: of Dirty, Opaque and Keeps; or Executes what that has prepared
	reach
}

func (d does) or(e does) does { return does{d.leaves | e.leaves, d.reach.or(e.reach)} }

// code is what a Router knows of code.
type code struct {
	functions map[string]does    // by folded name
	runs      map[Name]*[3]does  // relations, by Way: what that runs and reads
	named     map[string][3]does // the same by folded name, with where the relations of that name live
	byOID     map[uint32]string  // folded names of functions that do something
	symbols   map[string]Flags   // what Catalog.Symbols leave
	events    Flags              // ... and Catalog.Events
}

// graph is code as it is followed: a node for each folded name of a function, and three, by Way, for each relation.
type graph struct {
	nodes     []node
	functions map[string]int
	relations map[Name]int
	order     []Name                 // of relations
	words     map[string][]int       // relations by folded name
	places    map[int][Calling]reach // by relation: where it lives, as far as that matters
}

type node struct {
	does
	by []int // who runs it
}

// follow finds what all functions do and all uses of relations.
func (r *Router) follow(c *Catalog) {
	r.code = code{map[string]does{}, map[Name]*[3]does{}, map[string][3]does{}, map[uint32]string{}, map[string]Flags{}, 0}
	if c == nil {
		c = &Catalog{}
	}
	g := graph{functions: map[string]int{}, relations: map[Name]int{}, words: map[string][]int{}, places: map[int][Calling]reach{}}
	for i := range c.Functions {
		f := &c.Functions[i]
		left := f.leftBy()
		if !f.User && left == 0 {
			continue
		}
		name := fold(f.Name)
		at, ok := g.functions[name]
		if !ok {
			at = g.add(1)
			g.functions[name] = at
		}
		g.nodes[at].leaves |= left
	}
	for i := range c.Tables {
		g.relation(r, Name{c.Tables[i].Schema, c.Tables[i].Name})
	}
	for _, t := range r.m.Tables() { // some may be newer than the catalog
		g.relation(r, Name{t.Schema, t.Name})
	}
	for i := range c.Functions {
		if f := &c.Functions[i]; f.User {
			g.link(g.functions[fold(f.Name)], &f.Code)
		}
	}
	for i := range c.Tables {
		t := &c.Tables[i]
		for way := range t.Runs {
			g.link(g.relations[Name{t.Schema, t.Name}]+way, &t.Runs[way])
		}
	}
	events, symbols := g.add(1), map[string]int{}
	g.link(events, &c.Events)
	for name, code := range c.Symbols {
		symbols[name] = g.add(1)
		g.link(symbols[name], code)
	}
	g.settle()
	r.code.events = g.nodes[events].leaves
	for name, at := range symbols {
		if f := g.nodes[at].leaves; f != 0 {
			r.code.symbols[name] = f
		}
	}
	r.keep(&g)
}

func (g *graph) add(n int) (at int) {
	at = len(g.nodes)
	g.nodes = append(g.nodes, make([]node, n)...)
	return at
}

func (g *graph) relation(r *Router, n Name) {
	if _, ok := g.relations[n]; ok {
		return
	}
	at := g.add(3)
	g.order = append(g.order, n)
	g.relations[n], g.words[fold(n.Name)] = at, append(g.words[fold(n.Name)], at)
	g.places[at] = r.reachOf(n)
	g.nodes[at+int(Reading)].by = append(g.nodes[at+int(Reading)].by, at+int(Writing))
}

// link has a node do what its code says.
func (g *graph) link(from int, code *Code) {
	g.nodes[from].leaves |= code.Leaves
	for _, use := range code.Names {
		if use.Way == Writing && (Name{use.Schema, use.Name}) == pgSettings { // its rule calls set_config
			g.nodes[from].leaves |= Dirty | Opaque | Restates | Resets
		}
		if at, ok := g.functions[use.Name]; ok && use.Schema == "" {
			g.nodes[at].by = append(g.nodes[at].by, from)
		}
		for _, at := range g.meant(use) {
			g.nodes[at+int(use.Way)].by = append(g.nodes[at+int(use.Way)].by, from)
			if !use.Within {
				g.nodes[from].reach = g.nodes[from].or(does{reach: g.places[at][use.Way]}).reach
			}
		}
	}
}

// meant are the relations that a use is of.
func (g *graph) meant(use Use) []int {
	if use.Way == Calling {
		return nil
	}
	if use.Schema == "" {
		return g.words[use.Name]
	}
	if at, ok := g.relations[Name{use.Schema, use.Name}]; ok {
		return []int{at}
	}
	return nil
}

// settle passes what each node does to who runs it, until nothing is new.
func (g *graph) settle() {
	var todo []int
	for i := range g.nodes {
		if g.nodes[i].does != (does{}) {
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		from := &g.nodes[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		for _, by := range from.by {
			if all := g.nodes[by].or(from.does); all != g.nodes[by].does {
				g.nodes[by].does = all
				todo = append(todo, by)
			}
		}
	}
}

// keep notes what came out, as far as it is anything.
func (r *Router) keep(g *graph) {
	for name, at := range g.functions {
		if d := g.nodes[at].does; d != (does{}) {
			for _, key := range keys(name) {
				r.code.functions[key] = r.code.functions[key].or(d)
			}
		}
	}
	for _, overloads := range r.names.functions {
		for i := range overloads {
			f := &overloads[i]
			if !f.User && len(f.OIDs) == 0 {
				continue
			}
			d, ok := r.code.functions[fold(f.Name)]
			if f.User && d.leaves&Dirty != 0 {
				f.Volatility = Volatile
			}
			for _, oid := range f.OIDs {
				if ok {
					r.code.byOID[oid] = fold(f.Name)
				}
			}
		}
	}
	for _, n := range g.order {
		at := g.relations[n]
		var run, name [3]does
		for way := range run {
			run[way] = g.nodes[at+way].does
			name[way] = run[way].or(does{reach: g.places[at][way]})
		}
		if run != ([3]does{}) {
			r.code.runs[n] = &run
		}
		if name == ([3]does{}) {
			continue
		}
		for _, key := range keys(fold(n.Name)) {
			all := r.code.named[key]
			for way := range all {
				all[way] = all[way].or(name[way])
			}
			r.code.named[key] = all
		}
	}
}

// keys are the names under which a folded name is found: as it is, and by sessions whose encoding is another.
func keys(name string) []string {
	if ascii([]byte(name)) {
		return []string{name}
	}
	return []string{name, rough(name)}
}

// fold is a name, or a text, of the session as the names of code are kept.
func (s *Session) fold(text string) string {
	if s.utf8 {
		return fold(text)
	}
	return rough(text)
}

// function is what calling a function of that name does.
func (c *code) function(ses *Session, name string) does { return c.functions[ses.fold(name)] }

// text is what a piece of code does, that of DO.
func (c *code) text(ses *Session, text string) (d does, settings []string) {
	d.leaves, settings = read(text)
	if len(c.functions)+len(c.named) > 0 {
		words(ses.fold(text), func(word string, way Way) {
			if word != "set_config" { // of which read has seen more than its name
				d = d.or(c.functions[word])
			}
			d = d.or(c.named[word][way])
		})
	}
	return d, settings
}

// relation is what using a relation runs and reads.
func (c *code) relation(ses *Session, n Name, way Way) does {
	if d := c.runs[n]; d != nil {
		return d[way]
	}
	if !ses.utf8 && !ascii([]byte(n.Name)) { // the only shard's, as several are refused
		return c.named[ses.fold(n.Name)][way]
	}
	return does{}
}
