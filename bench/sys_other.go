//go:build !linux

package main

import (
	"errors"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func raiseFiles() (int, error) {
	return 0, errors.New("the benchmark reads processes' time and memory from /proc, so it needs Linux")
}
