//go:build !linux

package main

import "io"

// isTerminal reports false: nobody asked for progress lines elsewhere yet.
func isTerminal(io.Writer) bool { return false }
