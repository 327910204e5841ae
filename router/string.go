package router

import (
	"fmt"
	"strings"
)

// String is the plan as a tree, for golden tests, logs and EXPLAIN.
func (p *Plan) String() string {
	var b strings.Builder
	b.WriteString(p.Kind.String())
	if p.Kind == Refuse && p.Refusal != nil {
		fmt.Fprintf(&b, " %s %s", p.Refusal.Code, p.Refusal.Message)
		if p.Refusal.Detail != "" {
			fmt.Fprintf(&b, "\n  detail: %s", p.Refusal.Detail)
		}
		if p.Refusal.Hint != "" {
			fmt.Fprintf(&b, "\n  hint: %s", p.Refusal.Hint)
		}
		return b.String()
	}
	return b.String()
}
