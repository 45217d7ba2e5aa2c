//go:build !race

package homa

const raceEnabled = false
