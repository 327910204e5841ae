package elastic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// layoutVersion changes when the hidden fields or the form of exact values do.
const layoutVersion = 1

// layout is kept in the mapping's _meta: what an index was made for. A mapping that comes back from Elasticsearch is
// not the one that was sent (defaults, order), so the comparison is with what was meant.
type layout struct {
	Version int               `json:"layout"`
	Columns map[string]string `json:"columns"` // name → type and hash of its mapping
}

func layoutOf(fields []field) layout {
	l := layout{Version: layoutVersion, Columns: map[string]string{}}
	for _, f := range fields {
		b, err := json.Marshal([]any{f.property, f.exact, f.OID, f.Key})
		if err != nil { // maps of JSON's own types
			panic(err)
		}
		sum := sha256.Sum256(b)
		l.Columns[f.Name] = fmt.Sprintf("%v %s", f.property["type"], hex.EncodeToString(sum[:4]))
	}
	return l
}

// differences lists how an index differs from what is configured, empty when it does not.
func (l layout) differences(have layout) []string {
	var out []string
	if have.Version != l.Version {
		out = append(out, fmt.Sprintf("its layout is %d, this program writes %d", have.Version, l.Version))
	}
	for name, want := range l.Columns {
		switch got, ok := have.Columns[name]; {
		case !ok:
			out = append(out, fmt.Sprintf("column %s is not in it", name))
		case got != want:
			out = append(out, fmt.Sprintf("column %s is mapped in another way (%s there, %s here)", name, got, want))
		}
	}
	for name := range have.Columns {
		if _, ok := l.Columns[name]; !ok {
			out = append(out, fmt.Sprintf("column %s is only in it", name))
		}
	}
	slices.Sort(out)
	return out
}

// concrete is the index of this generation; write is the alias that its projector writes to.
func (m *Model) concrete() string { return m.cfg.Index + "-" + strconv.Itoa(m.cfg.Generation) }
func (m *Model) write() string    { return m.concrete() + ".write" }

// prepareWrite creates the index and its aliases, or checks that the existing one fits. It does so once.
func (m *Model) prepareWrite(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.written {
		return nil
	}
	err := m.verify(ctx, m.concrete())
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound {
		if err = m.create(ctx); err == nil {
			err = m.verify(ctx, m.concrete())
		}
	}
	if err != nil {
		return fmt.Errorf("elasticsearch read model %s: %w", m.cfg.Name, err)
	}
	m.written = true
	return nil
}

// Prepare creates the index, where it is missing, so that a view is there before its first event.
func (m *Model) Prepare(ctx context.Context) error { return m.prepareWrite(ctx) }

// prepareRead checks, once, that the alias leads to an index that fits.
func (m *Model) prepareRead(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.read {
		return nil
	}
	err := m.verify(ctx, m.cfg.Index)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound {
		return fmt.Errorf("elasticsearch read model %s: %w: index %s does not exist yet; its projector creates it: is one running?",
			m.cfg.Name, cqrs.ErrStale, m.cfg.Index)
	}
	if err != nil {
		return fmt.Errorf("elasticsearch read model %s: %w", m.cfg.Name, err)
	}
	m.read = true
	return nil
}

func (m *Model) verify(ctx context.Context, name string) error {
	body, err := m.do(ctx, http.MethodGet, "/"+name+"/_mapping", nil)
	if err != nil {
		return fmt.Errorf("mapping of index %s: %w", name, err)
	}
	var indices map[string]struct {
		Mappings struct {
			Meta struct {
				Tidemark *layout `json:"tidemark"`
			} `json:"_meta"`
		} `json:"mappings"`
	}
	if err := json.Unmarshal(body, &indices); err != nil {
		return fmt.Errorf("mapping of index %s: %w", name, err)
	}
	if len(indices) != 1 {
		return fmt.Errorf("alias %s leads to %d indices, want one", name, len(indices))
	}
	for index, i := range indices {
		have := i.Mappings.Meta.Tidemark
		if have == nil {
			return fmt.Errorf("index %s exists and was not made by Tidemark: give the read model another index, or delete that one", index)
		}
		if d := layoutOf(m.fields).differences(*have); len(d) > 0 {
			return fmt.Errorf("index %s was made for other columns: %s; give the read model another index, which is then filled from the beginning, or set the columns back",
				index, strings.Join(d, "; "))
		}
	}
	return nil
}

func (m *Model) create(ctx context.Context) error {
	aliases := map[string]any{m.write(): map[string]any{}}
	// The first generation takes the readers' alias; a later one leaves it until a rebuild is complete.
	_, err := m.do(ctx, http.MethodGet, "/_alias/"+m.cfg.Index, nil)
	var e *Error
	switch {
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		aliases[m.cfg.Index] = map[string]any{}
	case err != nil:
		return fmt.Errorf("alias %s: %w", m.cfg.Index, err)
	}
	settings := map[string]any{"index": map[string]any{
		"number_of_shards": m.cfg.Shards, "number_of_replicas": m.cfg.Replicas,
		"refresh_interval": strconv.FormatInt(m.cfg.Refresh.Milliseconds(), 10) + "ms",
		"mapping":          map[string]any{"total_fields": map[string]any{"limit": max(defaultFields, 4*len(m.fields)+50)}},
	}}
	over, err := plain(m.cfg.Settings)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	body, err := json.Marshal(map[string]any{"settings": merge(settings, over), "mappings": mappings(m.fields), "aliases": aliases})
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	_, err = m.do(ctx, http.MethodPut, "/"+m.concrete(), body)
	if errors.As(err, &e) && e.Type == "resource_already_exists_exception" {
		return nil // another projector was faster
	}
	if err != nil {
		return fmt.Errorf("create index %s: %w", m.concrete(), err)
	}
	return nil
}
