package config

import (
	"fmt"
	"slices"
	"strings"
)

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
