//go:build !linux

package loop

import "time"

func systemRigs() []rig { return nil }

// cpuTime is not measured here.
func cpuTime() time.Duration { return 0 }
