//go:build race

package homa

const raceEnabled = true
