package router

import "fmt"

// Reader reads one Catalog after another, without Models, over one connection to a PostgreSQL of version 15 or later. What PostgreSQL
// brings along itself, and what roles' sessions begin with, it keeps from the first on: thousands of functions, which are read again only
// where somebody has altered one of them, and paths, which count for as long as the process lives. So it must not be used for another
// server.
type Reader struct {
	shards   int // how many the database has
	builtins []Function
	print    []byte // of builtins, see builtinsQuery
	paths    []Path
}

// NewReader makes a Reader of a database of so many shards.
func NewReader(shards int) *Reader { return &Reader{shards: shards} }

// Question is a statement that a Reader asks again and again: its text is always the same for the name.
type Question struct {
	Name, SQL string
	Params    [][]byte // in text format
}

// Ask sends questions to the server, which answers them all from one state of the database: in one transaction of isolation level
// repeatable read.
type Ask func(questions []Question) (Answers, error)

// Answers calls each with the rows that answer the next question: values in text format, nil for NULL, valid until it returns.
type Answers func(each func(row [][]byte) error) error

// Read reads a Catalog.
func (r *Reader) Read(ask Ask) (*Catalog, error) {
	questions := []Question{
		{Name: "columns", SQL: columnsQuery},
		{Name: "views", SQL: viewsQuery},
		{Name: "builtins", SQL: builtinsQuery, Params: [][]byte{r.print}},
		{Name: "functions", SQL: functionsQuery},
		{Name: "code", SQL: fmt.Sprintf(codeQuery, r.shards > 1)},
		{Name: "runs", SQL: runsQuery},
	}
	if r.paths == nil {
		questions = append(questions, Question{Name: "paths", SQL: pathsQuery})
	}
	answers, err := ask(questions)
	if err != nil {
		return nil, err
	}
	c := &Catalog{}
	if err := answers(c.column); err != nil {
		return nil, fmt.Errorf("read columns: %w", err)
	}
	if err := answers(c.view); err != nil {
		return nil, fmt.Errorf("read views: %w", err)
	}
	if err := r.readFunctions(c, answers); err != nil {
		return nil, fmt.Errorf("read functions: %w", err)
	}
	if err := c.readCode(answers); err != nil {
		return nil, fmt.Errorf("read functions' code: %w", err)
	}
	if r.paths == nil {
		if r.paths, err = readPaths(answers); err != nil {
			return nil, fmt.Errorf("read search paths: %w", err)
		}
	}
	c.Paths = r.paths
	return c, nil
}
