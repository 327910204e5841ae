package sql

// Redact is a query string for people who may not see its data: every literal is a question mark, in all kinds of statements,
// and comments are gone. What cannot be scanned is empty.
func Redact(text []byte) []byte {
	s := Scanner{hide: true}
	if !s.Scan(text) {
		return nil
	}
	for i, c := range s.Shape {
		if c == integerMark || c == decimalMark || c == stringMark {
			s.Shape[i] = '?'
		}
	}
	return s.Shape
}
