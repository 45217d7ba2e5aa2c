package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/tougw/tougw/internal/testnet"
)

// TestSSH types into a shell behind the tunnel, one line at a time, and copies
// a file each way.
func TestSSH(t *testing.T) {
	w := newWorld(t, options{})
	args, err := w.SSHServer(w.ctx)
	w.must(err)
	host := "root@" + testnet.ServerAddr.String()

	w.run("interactive", func(w *world, t *testing.T) {
		// -tt: a terminal on the server's side, though there is none here. What
		// is typed comes back as the terminal's echo, then as cat's answer.
		cmd := exec.CommandContext(w.ctx, "ssh", append(args, "-tt", host, "tty && exec cat")...)
		keyboard, err := cmd.StdinPipe()
		w.must(err)
		screen, err := cmd.StdoutPipe()
		w.must(err)
		p, err := w.app().Start(cmd)
		w.must(err)
		lines := bufio.NewScanner(screen)
		next := func() string {
			if !lines.Scan() {
				t.Fatalf("ssh ended: %v, %v", lines.Err(), p.Wait())
			}
			return strings.TrimRight(lines.Text(), "\r")
		}
		if tty := next(); !strings.HasPrefix(tty, "/dev/pts/") {
			t.Fatalf("the terminal is %q", tty)
		}
		for i := range 100 {
			typed := fmt.Sprintf("line %d", i)
			if _, err := io.WriteString(keyboard, typed+"\n"); err != nil {
				t.Fatal(err)
			}
			for _, from := range []string{"echo", "answer"} {
				if got := next(); got != typed {
					t.Fatalf("%s %d is %q, want %q", from, i, got, typed)
				}
			}
		}
		const endOfFile = "\x04"
		if _, err := io.WriteString(keyboard, endOfFile); err != nil {
			t.Fatal(err)
		}
		if lines.Scan() {
			t.Errorf("more on the screen: %q", lines.Text())
		}
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	})

	w.run("copy", func(w *world, t *testing.T) {
		data := content(6, 20<<20)
		_, err := w.WriteFile("file", string(data))
		w.must(err)
		there := host + ":" + w.Path("there")
		_, err = w.app().Run(w.ctx, "scp", append(args, w.Path("file"), there)...)
		w.must(err)
		_, err = w.app().Run(w.ctx, "scp", append(args, there, w.Path("back"))...)
		w.must(err)
		for _, name := range []string{"there", "back"} {
			if got := w.sumFile(name); got != sum(data) {
				t.Errorf("%s: %s, want %s", name, got, sum(data))
			}
		}
	})
}
