package framing

import (
	"strings"
	"testing"
)

// one is what becomes of one input.
type one struct {
	name, input string
	req         *Request // nil: the input is requests
	want        string   // summary of the messages
	err         string   // in the error
	answer      string   // to the error or the first refusal
	keep        bool
}

func (c one) test(t *testing.T, f Framing) {
	t.Run(c.name, func(t *testing.T) {
		defer guard(t)
		fresh, reqs := f.Requests, []Request(nil)
		if c.req != nil {
			fresh = f.Responses
			for range 8 {
				reqs = append(reqs, *c.req)
			}
		}
		messages, _, err := stable(fresh, f.Traits(), []byte(c.input), reqs, 1, 2)
		if got := summary(finished(messages)); got != c.want {
			t.Errorf("messages %q, want %q", got, c.want)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("error %v, want %q", err, c.err)
		}
		e, _ := err.(*Error)
		var req *Request
		for i := range messages {
			if e == nil && messages[i].refused != nil {
				e, req = messages[i].refused, &messages[i].req
			}
		}
		if e == nil {
			return
		}
		answer, keep := f.Answer(nil, e, req)
		if string(answer) != c.answer || keep != c.keep {
			t.Errorf("answer %q, keep %v; want %q", answer, keep, c.answer)
		}
	})
}

func TestRESPCommands(t *testing.T) {
	f := mustNew(t, Config{Type: TypeRESP, Max: 200, Head: 512, Depth: 2})
	const get = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
	state := func(what string) string {
		return "-ERR " + what + " changes the state of a connection, which this gateway does not keep\r\n"
	}
	for _, c := range []one{
		{name: "names", input: get + "*1\r\n$7\r\nnosuch!\r\n*2\r\n$5\r\nblpop\r\n$1\r\na\r\n", want: "GET 20 safe\n 17\nBLPOP 22\n"},
		{name: "quit", input: "*1\r\n$4\r\nquit\r\n", want: "QUIT 14 last local\n"},
		{name: "nothing", input: "\r\n*0\r\n*-1\r\n \n", want: ""},
		{name: "state", input: "*2\r\n$6\r\nselect\r\n$1\r\n1\r\n" + get, want: "SELECT 0 refused\nGET 20 safe\n", answer: state("SELECT"), keep: true},
		{name: "state inline", input: "  Multi  \n" + get, want: "MULTI 0 refused\nGET 20 safe\n", answer: state("MULTI"), keep: true},
		{name: "state of the client", input: "*3\r\n$6\r\nCLIENT\r\n$7\r\nsetname\r\n$1\r\na\r\n" + get, want: "CLIENT 0 refused\nGET 20 safe\n", answer: state("CLIENT SETNAME"), keep: true},
		{name: "client otherwise", input: "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n", want: "CLIENT 24\n"},
		{name: "no reply", input: "CLIENT REPLY OFF\r\n", want: "CLIENT 0 refused\n", answer: "-ERR CLIENT REPLY has no single reply and cannot pass this gateway\r\n", keep: true},
		{name: "subscribe", input: "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n", want: "SUBSCRIBE 0 refused\n", answer: "-ERR SUBSCRIBE has no single reply and cannot pass this gateway\r\n", keep: true},
		{name: "quoted name", input: "\"subscribe\" c\r\n", err: "quoted", answer: "-ERR Protocol error: the name of an inline command is quoted\r\n"},
		{name: "escaped subcommand", input: "client \"\\x52EPLY\" off\r\n", err: "quoted", answer: "-ERR Protocol error: the name of an inline command is quoted\r\n"},
		{name: "quoted value", input: "set a \"b c\"\r\n", want: "SET 13\n"},
		{name: "NUL", input: "get a\x00\r\n", err: "NUL", answer: "-ERR Protocol error: an inline command holds a NUL\r\n"},
		{name: "HTTP", input: "POST / HTTP/1.1\r\nHost: a\r\n\r\n", err: "HTTP is not RESP", answer: "-ERR Protocol error: HTTP is not RESP\r\n"},
		{name: "too large", input: "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$300\r\n" + strings.Repeat("x", 300) + "\r\n" + get, want: "SET 0 refused\nGET 20 safe\n", answer: "-ERR a message is larger than 200 bytes\r\n", keep: true},
		{name: "too many words", input: "*30\r\n$3\r\nDEL\r\n" + strings.Repeat("$1\r\nx\r\n", 29) + get, want: "DEL 0 refused\nGET 20 safe\n", answer: "-ERR a message is larger than 200 bytes\r\n", keep: true},
		{name: "not a bulk string", input: "*2\r\n$3\r\nGET\r\n:1\r\n", err: "expected '$'", answer: "-ERR Protocol error: expected '$', got \":\"\r\n"},
		{name: "name is not a bulk string", input: "*1\r\n+PING\r\n", err: "expected '$'", answer: "-ERR Protocol error: expected '$', got \"+\"\r\n"},
		{name: "count", input: "*1048577\r\n", err: "invalid length", answer: "-ERR Protocol error: invalid length \"1048577\"\r\n"},
		{name: "bulk of the name", input: "*1\r\n$536870913\r\n", err: "invalid length", answer: "-ERR Protocol error: invalid length \"536870913\"\r\n"},
		{name: "bulk", input: "*2\r\n$3\r\nGET\r\n$-1\r\n", err: "invalid bulk length", answer: "-ERR Protocol error: invalid bulk length \"-1\"\r\n"},
		{name: "bulk is longer", input: "*1\r\n$4\r\nPINGS\r\n", err: "does not end", answer: "-ERR Protocol error: a bulk string does not end with CR LF where its length says\r\n"},
		{name: "LF", input: "*1\n$4\nPING\n", err: "invalid length", answer: "-ERR Protocol error: invalid length \"1\"\r\n"},
		{name: "endless number", input: "*" + strings.Repeat("1", 100), err: "invalid length", answer: "-ERR Protocol error: invalid length \"1111111111111111111111111111111\"\r\n"},
		{name: "endless line", input: "get " + strings.Repeat("a", 600), err: "longer than 512", answer: "-ERR Protocol error: an inline command is longer than 512 bytes\r\n"},
		{name: "truncated", input: get[:15], err: "ended within a request", answer: "-ERR the connection ended within a request\r\n"},
	} {
		c.test(t, f)
	}
	pass := mustNew(t, Config{Type: TypeRESP, ConnectionState: "pass"})
	for _, c := range []one{
		{name: "state passes", input: "MULTI\r\nHELLO 3\r\n", want: "MULTI 7\nHELLO 9\n"},
		{name: "endless does not", input: "monitor\r\n", want: "MONITOR 0 refused\n", answer: "-ERR MONITOR has no single reply and cannot pass this gateway\r\n", keep: true},
	} {
		c.test(t, pass)
	}
}

func TestRESPReplies(t *testing.T) {
	f := mustNew(t, Config{Type: TypeRESP, Max: 200, Head: 512, Depth: 2})
	protocol := "-ERR Protocol error: "
	for _, c := range []one{
		{name: "push between", input: "+a\r\n>2\r\n+x\r\n*1\r\n$1\r\na\r\n:1\r\n", want: " 4\n 19 push\n 4\n"},
		{name: "attribute", input: "|1\r\n+a\r\n*1\r\n:1\r\n$1\r\na\r\n", want: " 23\n"},
		{name: "deep enough", input: "*1\r\n*1\r\n:1\r\n", want: " 12\n"},
		{name: "too deep", input: "*1\r\n*1\r\n*1\r\n:1\r\n", err: "deeper than 2", answer: protocol + "aggregates are nested deeper than 2\r\n"},
		{name: "too large", input: "$300\r\n" + strings.Repeat("x", 300) + "\r\n+a\r\n", want: " 0 refused\n 4\n", answer: "-ERR a message is larger than 200 bytes\r\n", keep: true},
		{name: "push within", input: "*1\r\n>1\r\n:1\r\n", err: "push within", answer: protocol + "a push within a reply\r\n"},
		{name: "no type", input: "hello\r\n", err: "no type", answer: protocol + "\"h\" is no type of RESP\r\n"},
		{name: "integer", input: ":1a\r\n", err: "not an integer", answer: protocol + "\":1a\" is not an integer\r\n"},
		{name: "boolean", input: "#1\r\n", err: "neither true", answer: protocol + "\"#1\" is neither true nor false\r\n"},
		{name: "streamed", input: "$?\r\n;1\r\na\r\n;0\r\n", err: "invalid bulk length", answer: protocol + "invalid bulk length \"?\"\r\n"},
		{name: "CR", input: "+a\rb\r\n", err: "does not end with CR LF", answer: protocol + "the line \"+a\\rb\" does not end with CR LF\r\n"},
		{name: "LF", input: "+a\n", err: "does not end with CR LF", answer: protocol + "the line \"+a\" does not end with CR LF\r\n"},
		{name: "count", input: "*99999999999\r\n", err: "invalid multibulk", answer: protocol + "invalid multibulk length \"99999999999\"\r\n"},
		{name: "truncated", input: "*2\r\n:1\r\n", err: "ended within a response", answer: "-ERR the connection ended within a response\r\n"},
	} {
		c.req = &Request{}
		c.test(t, f)
	}
	t.Run("nobody asked", func(t *testing.T) {
		defer guard(t)
		messages, _, err := stable(f.Responses, f.Traits(), []byte(">1\r\n:1\r\n+a\r\n"), nil)
		if err == nil || len(messages) != 1 || !messages[0].unsolicited {
			t.Errorf("%v %v", messages, err)
		}
	})
}

// A bulk string that is the last of its message tells the length.
func TestRESPKnowsLengthEarly(t *testing.T) {
	defer guard(t)
	f := mustNew(t, Config{Type: TypeRESP})
	value := strings.Repeat("v", 5000)
	head := "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000\r\n"
	messages, _, err := scan(f.Requests(), f.Traits(), []byte(head+value+"\r\n"), bytewise, nil, 0)
	if err != nil || messages[0].known != len(head) {
		t.Errorf("known after %d bytes, want %d: %v", messages[0].known, len(head), err)
	}
	head = "*2\r\n*1\r\n:1\r\n*1\r\n$5000\r\n"
	messages, _, err = scan(f.Responses(), f.Traits(), []byte(head+value+"\r\n"), bytewise, []Request{{}}, 0)
	if err != nil || messages[0].known != len(head) {
		t.Errorf("known after %d bytes, want %d: %v", messages[0].known, len(head), err)
	}
}

func TestMemcachedCommands(t *testing.T) {
	f := mustNew(t, Config{Type: TypeMemcached, Max: 200, Head: 512})
	big := strings.Repeat("x", 300)
	for _, c := range []one{
		{name: "quit", input: "quit\r\n", want: "quit 6 last local\n"},
		{name: "quiet", input: "mg a v q\r\nmg a v O1 kq\r\nset a 0 0 1 noreply\r\nx\r\nget noreply\r\n", want: "mg 10 quiet\nmg 14\nset 24 quiet\nget 13 safe\n"},
		{name: "unknown", input: "bogus a\r\nget a\r\n", want: " 0 refused\nget 7 safe\n", answer: "ERROR\r\n", keep: true},
		{name: "empty", input: "\r\nget a\r\n", want: " 0 refused\nget 7 safe\n", answer: "ERROR\r\n", keep: true},
		{name: "wrong count", input: "get\r\nget a\r\n", want: "get 0 safe refused\nget 7 safe\n", answer: "ERROR\r\n", keep: true},
		{name: "long key", input: "get a " + big + "\r\n", want: "get 0 safe refused\n", answer: "ERROR\r\n", keep: true},
		{name: "long key to store", input: "set " + big + " 0 0 1\r\nx\r\n", err: "bad command line", answer: "CLIENT_ERROR bad command line format\r\n"},
		{name: "wrong count to store", input: "set a 0\r\nx\r\n", err: "bad command line", answer: "CLIENT_ERROR bad command line format\r\n"},
		{name: "watch", input: "watch\r\n", want: "watch 0 refused\n", answer: "CLIENT_ERROR watch has no end and cannot pass this gateway\r\n", keep: true},
		{name: "too large", input: "set a 0 0 300\r\n" + big + "\r\nget a\r\n", want: "set 0 refused\nget 7 safe\n", answer: "SERVER_ERROR object too large for cache\r\n", keep: true},
		{name: "too large and quiet", input: "set a 0 0 300 noreply\r\n" + big + "\r\n", want: "set 0 quiet refused\n", answer: "", keep: true},
		{name: "negative", input: "set a 0 0 -1\r\n", err: "bad data chunk", answer: "CLIENT_ERROR bad data chunk\r\n"},
		{name: "gigantic", input: "set a 0 0 1073741825\r\n", err: "bad data chunk", answer: "CLIENT_ERROR bad data chunk\r\n"},
		{name: "longer", input: "set a 0 0 1\r\nxget a\r\n", err: "bad data chunk", answer: "CLIENT_ERROR bad data chunk\r\n"},
		{name: "CR", input: "get a\rset b 0 0 1\r\n", err: "bad command line", answer: "CLIENT_ERROR bad command line format\r\n"},
		{name: "binary", input: "\x80\x00\x00\x01", err: "binary protocol", answer: "CLIENT_ERROR the binary protocol of memcached is not supported\r\n"},
		{name: "endless", input: strings.Repeat("get ", 200), err: "longer than 512", answer: "CLIENT_ERROR a command is longer than 512 bytes\r\n"},
		{name: "truncated", input: "set a 0 0 10\r\nx", err: "ended within", answer: "CLIENT_ERROR the connection ended within a data block\r\n"},
	} {
		c.test(t, f)
	}
}

func TestMemcachedAnswers(t *testing.T) {
	f := mustNew(t, Config{Type: TypeMemcached, Max: 200, Head: 512})
	bad := "CLIENT_ERROR "
	for _, c := range []one{
		{name: "values", req: &Request{kind: mcValues, keys: 2}, input: "VALUE a 0 1\r\nx\r\nVALUE b 0 0 7\r\n\r\nEND\r\nEND\r\nSERVER_ERROR x\r\n", want: " 38\n 5\n 16\n"},
		{name: "one key", req: &Request{kind: mcValues, keys: 1}, input: "VALUE a 0 1\r\nx\r\nEND\r\nEND\r\n", want: " 21\n 5\n"},
		{name: "more than asked", req: &Request{kind: mcValues, keys: 1}, input: "VALUE a 0 1\r\nx\r\nVALUE b 0 0\r\n\r\nEND\r\n", err: "before its length", answer: bad + "an answer ends before its length\r\n"},
		{name: "meta", req: &Request{kind: mcMeta}, input: "VA 2 s2\r\n\r\n\r\nHD\r\nEN\r\n", want: " 13\n 4\n 4\n"},
		{name: "fenced", req: &Request{kind: mcFenced}, input: "MN\r\nVA 2\r\nMN\r\nHD\r\nMN\r\nCLIENT_ERROR x\r\nVERSION 1\r\n", want: " 4\n 18\n 27\n"},
		{name: "stats", req: &Request{kind: mcLists}, input: "STAT a 1\r\nSTAT b 2\r\nEND\r\nRESET\r\n", want: " 25\n 7\n"},
		{name: "too large", req: &Request{kind: mcValues, keys: 1}, input: "VALUE a 0 300\r\n" + strings.Repeat("x", 300) + "\r\nEND\r\nEND\r\n", want: " 0 refused\n 5\n", answer: "SERVER_ERROR object too large for cache\r\n", keep: true},
		{name: "wrong", req: &Request{Name: "get", kind: mcValues, keys: 1}, input: "STORED\r\n", err: "is no answer to get", answer: bad + "\"STORED\" is no answer to get\r\n"},
		{name: "length", req: &Request{kind: mcMeta}, input: "VA x\r\n", err: "no length", answer: bad + "\"x\" is no length of a value\r\n"},
		{name: "LF", req: &Request{kind: mcLine}, input: "OK\n", err: "CR LF", answer: bad + "the line \"OK\" does not end with CR LF\r\n"},
		{name: "truncated", req: &Request{kind: mcMeta}, input: "VA 3\r\na", err: "ended within", answer: bad + "the connection ended within an answer\r\n"},
	} {
		c.test(t, f)
	}
}
