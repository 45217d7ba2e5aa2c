//go:build race

package tcpip

// raceEnabled: the race detector has sync.Pool forget things at random, so
// allocations cannot be counted.
const raceEnabled = true
