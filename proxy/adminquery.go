package proxy

import (
	"context"
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// adminStatement is a statement of the admin database: a command, or a SELECT from its tables.
type adminStatement struct {
	command  *adminCommand
	template *router.Template // of a SELECT, which SHOW of a table is too; nil for commands
	show     bool             // tag SHOW
}

// adminPortal is a statement with its values. Its rows are kept until they are fetched: the tables are small.
type adminPortal struct {
	st      *adminStatement
	plan    *router.Plan
	formats []int16 // of the columns
	started bool
	rows    [][]byte // DataRow messages
	next    int
	tag     string
}

// prepare makes a statement of a text. Its error is for the client.
func (a *admin) prepare(text []byte, oids []uint32) (*adminStatement, error) {
	command, err := a.parseCommand(string(text))
	if err != nil {
		return nil, err
	}
	st := &adminStatement{command: command}
	if command != nil {
		if command.table == "" {
			return st, nil
		}
		text, st.command, st.show = []byte("SELECT * FROM "+command.table), nil, true
	}
	var scratch router.Scratch
	st.template = a.router.Template(&scratch, a.view, text, oids)
	switch g := st.template.Generic(); g.Kind {
	case router.Refuse:
		return nil, refusal(g.Refusal)
	case router.ViewScan, router.Nothing, router.Tx:
	case router.Setting:
		if err := a.harmless(g); err != nil {
			return nil, err
		}
	default:
		return nil, wire.Errorf(wire.FeatureNotSupported, "the admin database has no such table or function").
			WithDetail("Its tables are %s. The catalogs of PostgreSQL, which \\d and the like ask, are not among them.", strings.Join(a.names(), ", ")).
			WithHint("SHOW HELP lists tables and commands; SELECT columns FROM table WHERE ... ORDER BY ... LIMIT ... reads one.")
	}
	return st, nil
}

// harmless lets those settings pass that drivers send unasked. They change nothing here.
func (a *admin) harmless(p *router.Plan) error {
	c := p.Setting
	if c.Op == router.SetOp || c.Op == router.ResetOp {
		switch strings.ToLower(c.Name) {
		case "application_name", "extra_float_digits", "client_encoding", "client_min_messages", "datestyle", "intervalstyle", "timezone",
			"statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout", "bytea_output":
			return nil
		}
	}
	return wire.Errorf(wire.FeatureNotSupported, "settings cannot be changed in the admin database").
		WithHint("Change the configuration file, then RELOAD. SHOW config lists what is in force.")
}

func (a *admin) names() []string {
	names := make([]string, len(a.tables))
	for i, t := range a.tables {
		names[i] = t.Name
	}
	return names
}

// columns are those of its rows; nil when it has none.
func (st *adminStatement) columns() []router.ScanColumn {
	switch {
	case st.command != nil:
		return st.command.columns
	case st.template.Generic().Kind == router.ViewScan:
		return st.template.Generic().Scan.Columns
	}
	return nil
}

func appendColumns(dst []byte, columns []router.ScanColumn, formats []int16) []byte {
	fields := make([]wire.Field, len(columns))
	for i, c := range columns {
		fields[i] = wire.Field{Name: []byte(c.Name), TypeOID: c.OID, TypeLen: typeLen(c.OID), TypeMod: c.TypeMod}
		if formats != nil {
			fields[i].Format = formats[i]
		}
	}
	return wire.AppendRowDescription(dst, fields)
}

// open binds values to a statement.
func (c *console) open(st *adminStatement, values [][]byte, paramFormats, formats []int16) (*adminPortal, error) {
	p := &adminPortal{st: st, formats: formats}
	if p.formats == nil {
		p.formats = make([]int16, len(st.columns()))
	}
	if st.template != nil {
		if p.plan = st.template.Bind(values, paramFormats); p.plan.Kind == router.Refuse {
			return nil, refusal(p.plan.Refusal)
		}
	}
	return p, nil
}

// fetch runs a portal, if it has not begun, and gives at most limit rows (0: all).
func (c *console) fetch(ctx context.Context, p *adminPortal, limit int) error {
	if !p.started {
		if err := c.start(ctx, p); err != nil {
			return err
		}
		p.started = true
	}
	n := 0
	for ; p.next < len(p.rows) && (limit == 0 || n < limit); n++ {
		c.out = append(c.out, p.rows[p.next]...)
		p.rows[p.next] = nil
		p.next++
		if len(c.out) > consoleFlush {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	switch {
	case limit > 0 && n == limit: // whether there are more or not, as in PostgreSQL
		c.out = wire.AppendPortalSuspended(c.out)
	case p.plan != nil && p.plan.Kind == router.Nothing:
		c.out = wire.AppendEmptyQueryResponse(c.out)
	default:
		c.out = wire.AppendCommandComplete(c.out, p.tag)
	}
	return nil
}

// start runs a portal's statement; its rows are gathered.
func (c *console) start(ctx context.Context, p *adminPortal) error {
	if c.status == wire.TxAborted && (p.plan == nil || !endsTransaction(p.plan)) {
		return wire.Aborted()
	}
	take := func(columns []router.ScanColumn) func([][]byte) error {
		return func(values [][]byte) error {
			row, err := appendRow(nil, columns, p.formats, values)
			p.rows = append(p.rows, row)
			return err
		}
	}
	if cmd := p.st.command; cmd != nil {
		if err := c.mayRun(cmd); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		c.cancellable(cancel)
		defer c.cancellable(func() {})
		tag, err := cmd.run(ctx, c, take(cmd.columns))
		if err != nil && ctx.Err() != nil {
			return errCancelled()
		}
		p.tag = tag
		return err
	}
	switch p.plan.Kind {
	case router.ViewScan:
		scan := p.plan.Scan
		if err := c.a.views[scan.View].Scan(ctx, queryOf(scan), take(scan.Columns)); err != nil {
			return viewError(ctx, "table "+strconv.Quote(scan.View), err)
		}
		p.tag = "SELECT " + strconv.Itoa(len(p.rows))
		if p.st.show {
			p.tag = "SHOW"
		}
	case router.Tx:
		c.transaction(p)
	case router.Setting:
		p.tag = "SET"
		if p.plan.Setting.Op == router.ResetOp {
			p.tag = "RESET"
		}
	default: // Nothing
	}
	return nil
}

// transaction follows what the client believes. Tables are read as they are at each statement, whatever it says.
func (c *console) transaction(p *adminPortal) {
	p.tag = p.plan.Tag
	switch p.plan.Tx.Op {
	case router.Begin:
		c.status = wire.TxOpen
	case router.Commit, router.Rollback:
		if c.status == wire.TxAborted {
			p.tag = "ROLLBACK"
		}
		c.status = wire.TxIdle
	}
}

// cancellable says what a cancel request does from now on.
func (c *console) cancellable(cancel func()) {
	c.a.mu.Lock()
	c.cancel = cancel
	c.a.mu.Unlock()
}

func (c *console) parse(body []byte) error {
	m, err := wire.DecodeParse(body)
	if err != nil {
		return err
	}
	name := string(m.Name)
	if _, dup := c.stmts[name]; dup && name != "" {
		return wire.Errorf(wire.DuplicatePreparedStatement, "prepared statement \"%s\" already exists", name)
	}
	if len(c.stmts) >= consoleStatements {
		return wire.Errorf(wire.ProgramLimitExceeded, "too many prepared statements: %d", len(c.stmts)).WithHint("Close those that are not used any more.")
	}
	text := m.SQL
	var scan sql.Scanner
	if scan.Scan(text) && len(scan.Statements) == 1 { // without the semicolon
		text = text[scan.Statements[0].Start:scan.Statements[0].End]
	}
	st, err := c.a.prepare(text, m.AppendOIDs(nil))
	if err != nil {
		return err
	}
	c.stmts[name] = st
	c.out = wire.AppendParseComplete(c.out)
	return nil
}

func (c *console) bind(body []byte) error {
	m, err := wire.DecodeBind(body)
	if err != nil {
		return err
	}
	st := c.stmts[string(m.Statement)]
	if st == nil {
		return wire.Errorf(wire.InvalidSQLStatementName, "prepared statement \"%s\" does not exist", m.Statement)
	}
	if len(c.portals) >= consoleStatements {
		return wire.Errorf(wire.ProgramLimitExceeded, "too many portals: %d", len(c.portals))
	}
	var paramFormats []int16
	for i := range m.NumParams() {
		paramFormats = append(paramFormats, m.ParamFormat(i))
	}
	formats := make([]int16, len(st.columns()))
	for i := range formats {
		formats[i] = m.ResultFormat(i)
	}
	p, err := c.open(st, m.Params(nil), paramFormats, formats)
	if err != nil {
		return err
	}
	c.portals[string(m.Portal)] = p
	c.out = wire.AppendBindComplete(c.out)
	return nil
}

func (c *console) describe(body []byte) error {
	target, err := wire.DecodeDescribe(body)
	if err != nil {
		return err
	}
	var st *adminStatement
	var formats []int16
	if target.Kind == wire.KindPortal {
		p := c.portals[string(target.Name)]
		if p == nil {
			return wire.Errorf(wire.InvalidCursorName, "portal \"%s\" does not exist", target.Name)
		}
		st, formats = p.st, p.formats
	} else {
		if st = c.stmts[string(target.Name)]; st == nil {
			return wire.Errorf(wire.InvalidSQLStatementName, "prepared statement \"%s\" does not exist", target.Name)
		}
		var params []uint32
		if st.template != nil {
			params = st.template.Params()
		}
		c.out = wire.AppendParameterDescription(c.out, params)
	}
	if columns := st.columns(); columns != nil {
		c.out = appendColumns(c.out, columns, formats)
	} else {
		c.out = wire.AppendNoData(c.out)
	}
	return nil
}

func (c *console) execute(ctx context.Context, body []byte) error {
	m, err := wire.DecodeExecute(body)
	if err != nil {
		return err
	}
	p := c.portals[string(m.Portal)]
	if p == nil {
		return wire.Errorf(wire.InvalidCursorName, "portal \"%s\" does not exist", m.Portal)
	}
	return c.fetch(ctx, p, int(max(0, m.MaxRows)))
}

func (c *console) closeNamed(body []byte) error {
	target, err := wire.DecodeClose(body)
	if err != nil {
		return err
	}
	if target.Kind == wire.KindPortal {
		delete(c.portals, string(target.Name))
	} else {
		delete(c.stmts, string(target.Name))
	}
	c.out = wire.AppendCloseComplete(c.out)
	return nil
}
