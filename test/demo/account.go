package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// account prints what happens: numbered steps, indented lines, and a passing
// line of progress where a step takes long and somebody watches.
type account struct {
	step     int
	terminal bool
}

func newAccount() *account {
	info, err := os.Stdout.Stat()
	return &account{terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// title begins a step.
func (a *account) title(text string) {
	a.step++
	if a.terminal {
		fmt.Printf("\n\x1b[1m%d. %s\x1b[0m\n", a.step, text)
		return
	}
	fmt.Printf("\n%d. %s\n", a.step, text)
}

// line says something about the step.
func (a *account) line(format string, args ...any) {
	fmt.Printf("   "+format+"\n", args...)
}

// block shows text as it is, indented.
func (a *account) block(text string) {
	for line := range strings.Lines(text) {
		fmt.Print("      ", line)
	}
	if !strings.HasSuffix(text, "\n") {
		fmt.Println()
	}
}

// progress shows what state says, several times a second, until the returned
// function is called, which takes the line away and may be called again.
func (a *account) progress(state func() string) (done func()) {
	if !a.terminal {
		return func() {}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Printf("\r   ... %s\x1b[K", state())
			case <-stop:
				fmt.Print("\r\x1b[K")
				return
			}
		}
	})
	return sync.OnceFunc(func() { close(stop); wg.Wait() })
}
