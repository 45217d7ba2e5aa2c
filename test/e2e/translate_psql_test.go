package e2e

import (
	"bufio"
	bigendian "encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// databaseService is PostgreSQL, whose connections have no requests and answers
// that a framing could tell.
var databaseService = service{name: "database", port: 5432, framing: "{type: stream}"}

// postgres runs a PostgreSQL server, with data of its own, and returns the folder of
// its programs. It refuses to be root, hence the user that comes with Debian's
// package.
func (w *translators) postgres() (programs string) {
	w.t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if w.must(err); len(found) == 0 {
		w.t.Fatal("there is no /usr/lib/postgresql/*/bin/initdb")
	}
	programs = filepath.Dir(found[len(found)-1])
	account, err := user.Lookup("postgres")
	w.must(err)
	uid, err := strconv.Atoi(account.Uid)
	w.must(err)
	// The lab's folder is closed to others.
	data, err := os.MkdirTemp("", "tougw-database-")
	w.must(err)
	w.t.Cleanup(func() { w.must(os.RemoveAll(data)) })
	w.must(os.Chown(data, uid, -1))
	as := func(name string, args ...string) []string {
		return append([]string{"--reuid=" + account.Uid, "--regid=" + account.Gid, "--clear-groups", filepath.Join(programs, name), "-D", data}, args...)
	}
	_, err = w.Server.Run(w.ctx, "setpriv", as("initdb", "--auth=trust", "--username=test", "--no-sync", "--no-locale", "--encoding=UTF8")...)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte("host all all 0.0.0.0/0 trust\n"), 0o644))
	p := w.server("setpriv", databaseService.port, as("postgres", "-p", fmt.Sprint(databaseService.port), "-c", "unix_socket_directories=", "-c", "fsync=off",
		"-c", "listen_addresses="+testnet.ServerAddr.String())...)
	w.t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGQUIT) // at once
		<-p.Done()
	})
	return programs
}

func TestTranslatePostgreSQL(t *testing.T) {
	t.Parallel()
	need(t, "pg_createcluster=postgresql", "psql=postgresql")
	w := newTranslators(t, []service{databaseService})
	client := filepath.Join(w.postgres(), "psql")
	before := w.settled()
	args := func(at netip.AddrPort, more ...string) []string {
		return append([]string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", at.Addr().String(), "-p", fmt.Sprint(at.Port()), "-U", "test", "-d", "postgres"}, more...)
	}
	rows, sleep := 100_000, 3 // some megabytes, more than a gateway's patience
	if long {
		rows, sleep = 3_000_000, 30
	}
	input, err := w.WriteFile("rows", string(table(rows)))
	w.must(err)

	w.run("queries", func(w *translators, t *testing.T) {
		w.same("queries", databaseService, func(at netip.AddrPort) string {
			return w.output(fmt.Sprintf("DROP TABLE IF EXISTS t; CREATE TABLE t (n int, s text);\nBEGIN; INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 1000) n; SELECT count(*) FROM t; ROLLBACK;\n"+
				"SELECT count(*) FROM t;\nPREPARE p AS SELECT $1::int * 2; EXECUTE p(21);\nSELECT repeat('x', 2000000);\nSELECT pg_sleep(%d), 'awake';\n", sleep), client, args(at)...)
		})
	})
	w.run("copy", func(w *translators, t *testing.T) {
		w.same("out", databaseService, func(at netip.AddrPort) string {
			return sum([]byte(w.output("", client, args(at, "-c", fmt.Sprintf("COPY (SELECT n, md5(n::text) FROM generate_series(1, %d) n) TO STDOUT", rows))...)))
		})
		w.same("in", databaseService, func(at netip.AddrPort) string {
			return w.output("TRUNCATE t;\n\\copy t FROM "+input+"\nSELECT count(*), md5(string_agg(n || s, ',' ORDER BY n)) FROM t;\n", client, args(at)...)
		})
	})
	w.run("notify", func(w *translators, t *testing.T) {
		// psql asks before it shows one; this client is silent until it comes.
		wait := w.listenSQL(databaseService.through(), "news")
		for i := range 3 {
			w.output("", client, args(databaseService.through(), "-c", fmt.Sprintf("NOTIFY news, 'number %d'", i))...)
			if got, want := wait(), fmt.Sprintf("news\x00number %d\x00", i); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
	w.run("cancel", func(w *translators, t *testing.T) {
		p, report := w.interruptible(client, args(databaseService.through(), "-c", "SELECT pg_sleep(600)")...)
		w.eventually(20*time.Second, func() error {
			if got := w.output("", client, args(databaseService.direct(), "-c", "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'")...); got != "1\n" {
				return fmt.Errorf("%q sleep, want one", got)
			}
			return nil
		})
		w.must(p.Process.Signal(syscall.SIGINT))
		if err := p.Wait(); err == nil || !strings.Contains(report.String(), "canceling statement due to user request") {
			t.Errorf("%v, %q", err, report)
		}
	})
	w.clean(before)
}

// table is what the query of the test would copy out.
func table(rows int) []byte {
	var b []byte
	for n := range rows {
		b = fmt.Appendf(b, "%d\t%032x\n", n, n*n)
	}
	return b
}

// interruptible starts a program of the application, and gathers its errors.
func (w *translators) interruptible(name string, args ...string) (*testnet.Process, *testnet.Output) {
	w.t.Helper()
	cmd := exec.CommandContext(w.ctx, name, args...)
	report := &testnet.Output{}
	cmd.Stderr = report
	p, err := w.app().Start(cmd)
	w.must(err)
	return p, report
}

// listenSQL subscribes to a channel, in version 3 of PostgreSQL's protocol, and
// returns a function that waits for the next notification without a word.
func (w *translators) listenSQL(at netip.AddrPort, channel string) (wait func() string) {
	w.t.Helper()
	const version = 3 << 16
	c := w.mustDial(at)
	say := func(kind, body string) {
		_, err := io.WriteString(c, kind+string(bigendian.BigEndian.AppendUint32(nil, uint32(4+len(body))))+body)
		w.must(err)
	}
	in := bufio.NewReader(c)
	until := func(kind byte) string {
		for {
			head := make([]byte, 5)
			_, err := io.ReadFull(in, head)
			w.must(err)
			body := make([]byte, bigendian.BigEndian.Uint32(head[1:])-4)
			_, err = io.ReadFull(in, body)
			w.must(err)
			if head[0] == kind {
				return string(body)
			}
		}
	}
	const ready, notification = 'Z', 'A'
	say("", string(bigendian.BigEndian.AppendUint32(nil, version))+"user\x00test\x00database\x00postgres\x00\x00")
	until(ready)
	say("Q", "LISTEN "+channel+"\x00")
	until(ready)
	return func() string { return until(notification)[4:] } // behind the number of a process
}
