//go:build !linux

package loop

func systemRigs() []rig { return nil }
