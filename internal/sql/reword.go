package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// reworded puts the tree of a text that was parsed in another's place right: word gives a string of it the client's own form, or ends
// the walk; offset says where in the client's text a byte of the parsed one stands.
type reworded struct {
	word   func(string) (client string, goOn bool)
	offset func(at int) int
}

func (r *reworded) tree(tree *pg.ParseResult) {
	for _, raw := range tree.Stmts {
		if raw.StmtLen > 0 {
			end := r.offset(int(raw.StmtLocation + raw.StmtLen))
			raw.StmtLen = int32(end - r.offset(int(raw.StmtLocation)))
		}
		raw.StmtLocation = int32(r.offset(int(raw.StmtLocation)))
		if !r.message(raw.Stmt.ProtoReflect()) {
			return
		}
	}
}

func (r *reworded) message(m protoreflect.Message) (goOn bool) {
	goOn = true
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() == protoreflect.StringKind && !fd.IsList():
			var client string
			parsed := v.String()
			if client, goOn = r.word(parsed); client != parsed {
				m.Set(fd, protoreflect.ValueOfString(client))
			}
		case fd.Kind() == protoreflect.Int32Kind && strings.HasSuffix(string(fd.Name()), "location") && v.Int() > 0:
			m.Set(fd, protoreflect.ValueOfInt32(int32(r.offset(int(v.Int())))))
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			for i := 0; i < v.List().Len() && goOn; i++ {
				goOn = r.message(v.List().Get(i).Message())
			}
		default:
			goOn = r.message(v.Message())
		}
		return goOn
	})
	return goOn
}
