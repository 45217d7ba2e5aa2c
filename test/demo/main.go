// Command demo shows the whole path of the product on one machine, as root:
// five network namespaces, two daemons, and the traffic of real programs
// through them. `make demo` builds and runs it.
//
// It leaves nothing behind, whether it ends by itself, fails or is interrupted;
// after a failure the logs stay, and it says where.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// limit is far above what the demo needs on a slow machine.
const limit = 5 * time.Minute

func main() {
	binary := flag.String("tougw", "bin/tougw", "the `program` to show")
	keep := flag.Bool("keep", false, "leave everything running at the end, until Ctrl-C")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, *binary, *keep))
}

// run shows everything, cleans up and returns the exit code.
func run(ctx context.Context, binary string, keep bool) (code int) {
	if err := testnet.Probe(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	l, err := lab.New(binary, testnet.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	// Also when a step panics.
	defer func() {
		if err := l.Close(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, "demo: cleaning up:", err)
			code = 1
		}
		if code == 1 {
			fmt.Fprintf(os.Stderr, "The logs, keys and captures are in %s\n", l.Dir)
			return
		}
		if err := l.RemoveDir(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
	}()

	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	err = show(limited, l)
	switch {
	case ctx.Err() != nil:
		fmt.Println("\n\nInterrupted: cleaning up.")
		return 130
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		fmt.Fprintf(os.Stderr, "\ndemo: not done after %v: %v\n", limit, err)
		return 1
	case err != nil:
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		return 1
	}
	fmt.Printf("\nAll of it worked, in %.0f s.\n", time.Since(start).Seconds())
	next(l, keep)
	if keep {
		<-ctx.Done()
		fmt.Println("\nCleaning up.")
	}
	return 0
}

// next says what to try from here.
func next(l *lab.Lab, keep bool) {
	if keep {
		fmt.Printf(`
Everything still runs; Ctrl-C ends it. In another terminal, for example:
  ip netns exec %[1]s curl -o /dev/null http://%[4]s/file
  ip netns exec %[2]s tcpdump -ni gw0
  %[3]s status --socket %[5]s
`, l.Sites[0].App.Name, l.Internet.Name, l.Binary, testnet.ServerAddr, l.Path("client.sock"))
		return
	}
	fmt.Print(`
What to try next:
  make demo KEEP=1           the same, left running for you to look around
  make bench                 throughput and latency beside plain routing and wireguard-go
  make test                  every test that a change has to pass
  bin/tougw keygen -h        your own keys; README.md has a client and a gateway in ten lines each
`)
}
