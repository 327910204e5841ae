//go:build !unix

package main

import "syscall"

// ownGroup: there are no process groups here.
func ownGroup() *syscall.SysProcAttr { return nil }
