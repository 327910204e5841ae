package ranks

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// typeName is a type of the module: the folder of its package, and its name.
type typeName struct{ pkg, name string }

// typeMethods is what is declared of types: their methods, and what they embed.
type typeMethods struct {
	methods  map[typeName]map[string]bool
	embedded map[typeName][]typeName
}

// lookAlikes lists the pairs of methods that a type has, of its own or of what it embeds, and whose names differ by case alone: whoever reads
// s.take(l) beside s.Take(l) does not see which is meant.
func lookAlikes(m typeMethods) []string {
	var found []string
	for t := range m.methods {
		byName := map[string]map[string]bool{}
		m.collect(t, byName, map[typeName]bool{})
		for _, names := range byName {
			if len(names) > 1 {
				found = append(found, t.pkg+": "+t.name+" has "+strings.Join(slices.Sorted(maps.Keys(names)), " and "))
			}
		}
	}
	slices.Sort(found)
	return found
}

// collect adds the methods of t, and of what it embeds, by their names in lower case.
func (m typeMethods) collect(t typeName, byName map[string]map[string]bool, seen map[typeName]bool) {
	if seen[t] {
		return
	}
	seen[t] = true
	for name := range m.methods[t] {
		lower := strings.ToLower(name)
		if byName[lower] == nil {
			byName[lower] = map[string]bool{}
		}
		byName[lower][name] = true
	}
	for _, e := range m.embedded[t] {
		m.collect(e, byName, seen)
	}
}

// read adds what a file of the package in folder pkg declares.
func (m typeMethods) read(pkg string, file *ast.File) {
	imports := map[string]string{} // by the name that the file has for them
	for _, i := range file.Imports {
		if p, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module+"/"); ours {
			name := path.Base(p)
			if i.Name != nil {
				name = i.Name.Name
			}
			imports[name] = p
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				continue
			}
			t, ok := named(d.Recv.List[0].Type, pkg, imports)
			if !ok {
				continue
			}
			if m.methods[t] == nil {
				m.methods[t] = map[string]bool{}
			}
			m.methods[t][d.Name.Name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				s, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				body, ok := s.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range body.Fields.List {
					if e, ok := named(f.Type, pkg, imports); ok && len(f.Names) == 0 {
						t := typeName{pkg, s.Name.Name}
						m.embedded[t] = append(m.embedded[t], e)
					}
				}
			}
		}
	}
}

// named is the type of the module that an expression names, or points to.
func named(e ast.Expr, pkg string, imports map[string]string) (typeName, bool) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return named(e.X, pkg, imports)
	case *ast.IndexExpr:
		return named(e.X, pkg, imports)
	case *ast.IndexListExpr:
		return named(e.X, pkg, imports)
	case *ast.Ident:
		return typeName{pkg, e.Name}, true
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok && imports[x.Name] != "" {
			return typeName{imports[x.Name], e.Sel.Name}, true
		}
	}
	return typeName{}, false
}

func TestMethodsDifferByMoreThanCase(t *testing.T) {
	m := typeMethods{map[typeName]map[string]bool{}, map[typeName][]typeName{}}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(name))
		m.read(filepath.ToSlash(pkg), file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.methods); n < 100 {
		t.Fatalf("only %d types with methods were found", n)
	}
	for _, pair := range lookAlikes(m) {
		t.Error(pair + ": give one of them a name that says what it does differently")
	}
}

func TestLookAlikes(t *testing.T) {
	m := typeMethods{map[typeName]map[string]bool{}, map[typeName][]typeName{}}
	for pkg, text := range map[string]string{
		"low": `package low
			type Base struct{}
			func (*Base) Take() {}
			func (*Base) put() {}`,
		"high": `package high
			import "` + module + `/low"
			type one struct{ *low.Base }
			func (one) take() {}
			type two[T any] struct{ inner one; Other }
			func (t *two[T]) Take() {}
			func (t *two[T]) give() {}
			type Other struct{}
			func (Other) Give() {}`,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), pkg+".go", text, 0)
		if err != nil {
			t.Fatal(err)
		}
		m.read(pkg, file)
	}
	if diff := cmp.Diff([]string{"high: one has Take and take", "high: two has Give and give"}, lookAlikes(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
