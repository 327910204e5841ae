package proxy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// adminCommand is a command of the admin database with its arguments, ready to run. SHOW of a table is a SELECT: only the
// table's name is set then.
type adminCommand struct {
	name    string
	table   string
	needs   rights
	columns []router.ScanColumn // of its rows, if it has any
	run     func(ctx context.Context, c *console, row func([][]byte) error) (tag string, err error)
}

// AdminCommand describes a command, for SHOW HELP and docs/admin.md.
type AdminCommand struct{ Syntax, Doc string }

// AdminCommands are all commands.
var AdminCommands = []AdminCommand{
	{"SHOW table", "All rows of a table, as SELECT * FROM table."},
	{"SHOW HELP", "Tables and commands."},
	{"RELOAD", "Reads the configuration file again and applies all of it, or refuses it whole and says why; as SIGHUP does."},
	{"PAUSE [shard | database]", "Waits until running transactions have ended and closes their server connections; transactions that begin meanwhile, on that shard or on all, wait for RESUME, at most for pool.acquire_timeout. A client that is pinned to its connection holds it up until it leaves; connections that listen for clients stay open. Cancelling PAUSE takes it back."},
	{"RESUME [shard | database]", "Ends PAUSE."},
	{"RECONNECT [shard | database]", "Replaces server connections: idle ones at once, others when their transaction has ended, those that listen when nobody listens any more."},
	{"KILL id [, ...]", "Ends clients by the id that SHOW CLIENTS tells: their statement is cancelled, their transaction rolled back."},
	{"KILL USER name", "Ends all clients of a user."},
	{"TRACE id [, ...] [FOR '60s']", "Sends traces of what these clients do to tracing.endpoint for that time, a minute when left out; FOR '0s' ends it."},
	{"TRACE USER name [FOR '60s']", "The same for all clients of a user, those who come meanwhile included."},
	{"DRAIN", "Ends the process as SIGTERM does: no new clients, idle ones leave at once, others when their transaction has ended, all after drain_timeout."},
	{"SHUTDOWN", "Ends the process at once; transactions are rolled back."},
}

// mayRun checks the user's rights.
func (c *console) mayRun(cmd *adminCommand) error {
	if c.rights >= cmd.needs {
		return nil
	}
	return wire.Errorf(wire.InsufficientPrivilege, "permission denied for %s", cmd.name).
		WithHint("The user %q may only read; commands are for those listed under admin.users.", c.user)
}

// parseCommand reads a statement that begins with a command's word; nil for any other, which is SQL.
func (a *admin) parseCommand(text string) (*adminCommand, error) {
	words := commandWords(text)
	if len(words) == 0 {
		return nil, nil
	}
	name, args := strings.ToUpper(words[0]), words[1:]
	switch name {
	case "SHOW":
		return a.parseShow(args)
	case "RELOAD", "DRAIN", "SHUTDOWN":
		if len(args) > 0 {
			return nil, errArguments(name, "takes no arguments")
		}
		run := map[string]func(context.Context, *console) error{"RELOAD": reload, "DRAIN": drain, "SHUTDOWN": shutdown}[name]
		return &adminCommand{name: name, needs: allRights, run: func(ctx context.Context, c *console, _ func([][]byte) error) (string, error) {
			return name, run(ctx, c)
		}}, nil
	case "PAUSE", "RESUME", "RECONNECT":
		shards, err := a.shardsNamed(name, args)
		if err != nil {
			return nil, err
		}
		return &adminCommand{name: name, needs: allRights, run: func(ctx context.Context, c *console, _ func([][]byte) error) (string, error) {
			c.a.p.log.Info("console command", "command", name, "shards", shards, "user", c.user)
			switch name {
			case "PAUSE":
				return name, a.p.pause(ctx, shards)
			case "RESUME":
				a.p.resume(shards)
				return name, nil
			}
			return name + " " + strconv.Itoa(a.p.backend.Reconnect(shards...)), nil
		}}, nil
	case "KILL":
		return a.parseKill(args)
	case "TRACE":
		return a.parseTrace(args)
	}
	return nil, nil
}

// commandWords splits at blanks and commas. A word in double or single quotes is taken as it is.
func commandWords(text string) []string {
	var words []string
	var word []byte
	in := false
	end := func() {
		if in {
			words = append(words, string(word))
		}
		word, in = nil, false
	}
	for i := 0; i < len(text); i++ {
		switch b := text[i]; b {
		case ' ', '\t', '\n', '\r', '\f', '\v', ',', ';':
			end()
		case '"', '\'':
			n := strings.IndexByte(text[i+1:], b)
			if n < 0 {
				return nil // for the parser of SQL to explain
			}
			word, in = append(word, text[i+1:i+1+n]...), true
			i += n + 1
		default:
			word, in = append(word, b), true
		}
	}
	end()
	return words
}

func errArguments(name, what string) *wire.Error {
	e := wire.Errorf(wire.SyntaxError, "%s %s", name, what)
	for _, c := range AdminCommands {
		if strings.HasPrefix(c.Syntax, name) {
			return e.WithHint("The form is %s.", c.Syntax)
		}
	}
	return e
}

// shardsNamed are the shards that a command is for: one, or all of the database.
func (a *admin) shardsNamed(name string, args []string) ([]string, error) {
	var all []string
	for _, s := range a.p.backend.Shards() {
		all = append(all, s.Name())
	}
	if len(args) == 2 && (strings.EqualFold(args[0], "shard") || strings.EqualFold(args[0], "database")) {
		if strings.EqualFold(args[0], "shard") == slices.Contains(all, args[1]) {
			args = args[1:]
		}
	}
	switch {
	case len(args) == 0, len(args) == 1 && args[0] == a.p.cfg().Database && !slices.Contains(all, args[0]):
		return all, nil
	case len(args) > 1:
		return nil, errArguments(name, "takes one shard or the database")
	case !slices.Contains(all, args[0]):
		return nil, wire.Errorf(wire.UndefinedObject, "there is no shard or database %q", args[0]).
			WithHint("The database is %q; its shards are %s.", a.p.cfg().Database, strings.Join(all, ", "))
	}
	return args, nil
}

// parseShow: a table, HELP, or a setting that drivers ask for.
func (a *admin) parseShow(args []string) (*adminCommand, error) {
	if len(args) == 0 {
		return nil, errArguments("SHOW", "needs the name of a table")
	}
	name := strings.ToLower(strings.Join(args, " "))
	if name == "help" {
		return &adminCommand{
			name: "SHOW HELP", needs: readRights,
			columns: textColumns("what", "meaning"),
			run: func(_ context.Context, _ *console, row func([][]byte) error) (string, error) {
				return "SHOW", a.help(row)
			},
		}, nil
	}
	for _, t := range a.tables {
		if t.Name == strings.TrimPrefix(name, "tidemark.") {
			return &adminCommand{name: "SHOW", needs: readRights, table: t.Name}, nil
		}
	}
	for _, p := range a.greeting("") {
		if strings.EqualFold(p.Name, name) {
			return &adminCommand{
				name: "SHOW", needs: readRights, columns: textColumns(p.Name),
				run: func(_ context.Context, _ *console, row func([][]byte) error) (string, error) {
					return "SHOW", row([][]byte{[]byte(p.Value)})
				},
			}, nil
		}
	}
	return nil, wire.Errorf(wire.UndefinedObject, "the admin database has nothing called %q", name).
		WithHint("SHOW HELP lists tables and commands.")
}

func textColumns(names ...string) []router.ScanColumn {
	columns := make([]router.ScanColumn, len(names))
	for i, n := range names {
		columns[i] = router.ScanColumn{Name: n, Column: n, OID: pgtype.TextOID, TypeMod: -1}
	}
	return columns
}

func (a *admin) help(row func([][]byte) error) error {
	for _, c := range AdminCommands {
		if err := row([][]byte{[]byte(c.Syntax), []byte(c.Doc)}); err != nil {
			return err
		}
	}
	for _, t := range a.tables {
		if err := row([][]byte{[]byte("table " + t.Name), []byte(t.Doc)}); err != nil {
			return err
		}
	}
	return nil
}

// parseKill: client ids, or USER and a name.
func (a *admin) parseKill(args []string) (*adminCommand, error) {
	meant, whom, err := clientsMeant("KILL", args)
	if err != nil {
		return nil, err
	}
	return a.killing(meant, whom), nil
}

// clientsMeant are those that a command names, and how: by id, or all of a user.
func clientsMeant(command string, args []string) (meant func(*client) bool, whom string, err error) {
	if len(args) == 2 && strings.EqualFold(args[0], "user") {
		return func(x *client) bool { return x.user == args[1] }, "user " + args[1], nil
	}
	if len(args) > 1 && strings.EqualFold(args[0], "client") {
		args = args[1:]
	}
	ids := map[uint32]bool{}
	for _, arg := range args {
		id, err := strconv.ParseUint(arg, 10, 32)
		if err != nil {
			return nil, "", errArguments(command, fmt.Sprintf("takes client ids, and %q is none", arg))
		}
		ids[uint32(id)] = true
	}
	if len(ids) == 0 {
		return nil, "", errArguments(command, "needs client ids, or USER and a name")
	}
	return func(x *client) bool { return ids[x.pid] }, "client " + strings.Join(args, ", "), nil
}

func errNoClient(whom string) *wire.Error {
	return wire.Errorf(wire.UndefinedObject, "there is no %s", whom).WithHint("SHOW CLIENTS lists them.")
}

// killing ends the clients that are meant, and waits a moment for them to go, so that SHOW CLIENTS tells the outcome.
func (a *admin) killing(meant func(*client) bool, whom string) *adminCommand {
	return &adminCommand{name: "KILL", needs: allRights, run: func(ctx context.Context, c *console, _ func([][]byte) error) (string, error) {
		n := 0
		for _, x := range a.p.clients.all() {
			if meant(x) {
				a.p.log.Info("client killed", "client", hostPort(x.addr), "user", x.user, "by", c.user)
				a.p.kill(x)
				n++
			}
		}
		if n == 0 {
			return "", errNoClient(whom)
		}
		for range killPolls {
			if ctx.Err() != nil || !slices.ContainsFunc(a.p.clients.all(), meant) {
				break
			}
			sleep(ctx, pausePoll)
		}
		return "KILL " + strconv.Itoa(n), nil
	}}
}

// killPolls bounds how often KILL looks whether clients are gone.
const killPolls = 100

func reload(ctx context.Context, c *console) error {
	c.a.p.log.Info("console command", "command", "RELOAD", "user", c.user)
	if c.a.parts.Reload == nil {
		return wire.Errorf(wire.FeatureNotSupported, "this process has no configuration to reload")
	}
	if err := c.a.parts.Reload(ctx); err != nil {
		first, rest, _ := strings.Cut(err.Error(), "\n")
		e := wire.Errorf(wire.InvalidParameterValue, "the configuration was not reloaded: %s", first).
			WithHint("Nothing has changed.")
		if rest != "" {
			e = e.WithDetail("%s", rest)
		}
		return e
	}
	return nil
}

func drain(_ context.Context, c *console) error    { return c.stop("DRAIN", false) }
func shutdown(_ context.Context, c *console) error { return c.stop("SHUTDOWN", true) }

// stop has the process end a moment later, so that the client hears that it will.
func (c *console) stop(command string, now bool) error {
	c.a.p.log.Info("console command", "command", command, "user", c.user)
	if c.a.parts.Stop == nil {
		return wire.Errorf(wire.FeatureNotSupported, "this process cannot be stopped by %s", command)
	}
	time.AfterFunc(stopDelay, func() { c.a.parts.Stop(now) })
	return nil
}

// stopDelay is how long DRAIN and SHUTDOWN wait for their own answer to leave.
const stopDelay = 50 * time.Millisecond

// greeting is what clients of the admin database are told of the server at login.
func (a *admin) greeting(user string) []wire.Parameter {
	return []wire.Parameter{
		{Name: "server_version", Value: "16.0 (Tidemark " + a.p.version + ")"},
		{Name: "server_encoding", Value: "UTF8"},
		{Name: "client_encoding", Value: "UTF8"},
		{Name: "DateStyle", Value: "ISO, MDY"},
		{Name: "IntervalStyle", Value: "postgres"},
		{Name: "TimeZone", Value: "UTC"},
		{Name: "integer_datetimes", Value: "on"},
		{Name: "standard_conforming_strings", Value: "on"},
		{Name: "is_superuser", Value: "off"},
		{Name: "session_authorization", Value: user},
		{Name: "transaction isolation level", Value: "read committed"},
	}
}
