package proxy

import "testing"

func TestUnzoned(t *testing.T) {
	for literal, want := range map[string]bool{
		"2026-01-31":                true,
		"2026-01-31 12:00":          true,
		"2026-01-31 12:00:00.5":     true,
		"2026-01-31 12:00:00+00":    false,
		"2026-01-31T12:00:00Z":      false,
		"2026-01-31 12:00:00 UTC":   false,
		"2026-01-31 12:00:00-05:30": false,
		"2026-01-31 12:00:00+0530":  false,
		"infinity":                  false,
		" -Infinity ":               false,
		"epoch":                     false,
	} {
		if got := unzoned(literal); got != want {
			t.Errorf("unzoned(%q) = %v, want %v", literal, got, want)
		}
	}
}
