package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// openers is how many idle connections are opened at a time.
const openers = 64

// RunIdle holds connections open. It reads how many there should be, a number
// a line, opens what is missing, one byte echoed over each, and writes the
// number that is open, or "error: " and why, also a line. It closes all when
// the input ends or ctx does.
func RunIdle(ctx context.Context, t Target, in io.Reader, out io.Writer) error {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var want int
		if _, err := fmt.Sscan(lines.Text(), &want); err != nil {
			return fmt.Errorf("load: %q is no number of connections: %w", lines.Text(), err)
		}
		more, err := open(ctx, t, len(conns), want-len(conns))
		conns = append(conns, more...)
		if err != nil {
			fmt.Fprintf(out, "error: %d of %d are open: %v\n", len(conns), want, err)
			continue
		}
		if _, err := fmt.Fprintln(out, len(conns)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// open opens n connections. Also with an error it returns those that are open.
func open(ctx context.Context, t Target, first, n int) (conns []net.Conn, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		next int
	)
	take := func() (i int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return first + next, next <= n && ctx.Err() == nil
	}
	for range openers {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				conn, err := once(ctx, t, i)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return conns, context.Cause(ctx)
}
