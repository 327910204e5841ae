// Lint holds errcheck, errorlint and ineffassign in one program for go vet -vettool, which runs it package by package and remembers
// what it said. A comment "//nolint:NAME // why" at the end of a line silences NAME there; without a reason it silences nothing.
package main

import (
	"go/token"
	"regexp"
	"strings"

	"github.com/gordonklaus/ineffassign/pkg/ineffassign"
	"github.com/kisielk/errcheck/errcheck"
	"github.com/polyfloyd/go-errorlint/errorlint"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/unitchecker"
)

func main() {
	unitchecker.Main(
		quietable(errcheck.Analyzer),
		quietable(errorlint.NewAnalyzer()),
		quietable(ineffassign.Analyzer),
	)
}

var nolint = regexp.MustCompile(`^//nolint:([a-z,]+) // \S`)

type line struct {
	file string
	line int
}

// quietable returns a that does not report on lines that name it in a nolint comment.
func quietable(a *analysis.Analyzer) *analysis.Analyzer {
	wrapped := *a
	wrapped.Run = func(pass *analysis.Pass) (any, error) {
		quiet := quietLines(pass, a.Name)
		filtered := *pass
		filtered.Report = func(d analysis.Diagnostic) {
			if !quiet[lineOf(pass, d.Pos)] {
				pass.Report(d)
			}
		}
		return a.Run(&filtered)
	}
	return &wrapped
}

func quietLines(pass *analysis.Pass, name string) map[line]bool {
	quiet := map[line]bool{}
	for _, f := range pass.Files {
		for _, group := range f.Comments {
			for _, c := range group.List {
				m := nolint.FindStringSubmatch(c.Text)
				if m == nil {
					continue
				}
				for n := range strings.SplitSeq(m[1], ",") {
					if n == name {
						quiet[lineOf(pass, c.Pos())] = true
					}
				}
			}
		}
	}
	return quiet
}

func lineOf(pass *analysis.Pass, pos token.Pos) line {
	p := pass.Fset.Position(pos)
	return line{p.Filename, p.Line}
}
