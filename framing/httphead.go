package framing

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"sync"
)

// httpHead is what the header block of a message says about its end.
type httpHead struct {
	body    bodyKind
	length  int64 // with bodyLength
	close   bool  // the sender closes the connection behind the response
	skip    bool  // not for the client
	interim string
}

// parser lends net/http a reader of bytes.
type parser struct {
	bytes bytes.Reader
	buf   *bufio.Reader
}

var parsers = sync.Pool{New: func() any {
	p := new(parser)
	p.buf = bufio.NewReader(&p.bytes)
	return p
}}

func (p *parser) reset(b []byte) *bufio.Reader {
	p.bytes.Reset(b)
	p.buf.Reset(&p.bytes)
	return p.buf
}

// release makes the parser ready for others, without the bytes that it read.
func (p *parser) release() {
	p.reset(nil)
	parsers.Put(p)
}

// request parses the header block of a request.
func (h *httpHead) request(head []byte, l *linter) (Request, error) {
	*h = httpHead{}
	p := parsers.Get().(*parser)
	defer p.release()
	r, err := http.ReadRequest(p.reset(head))
	if err != nil {
		return Request{}, malformed("%s", err)
	}
	req := Request{Name: httpMethod(r.Method), Last: r.Close, head: r.Method == http.MethodHead, old: l.old}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		req.Safe = true
	case http.MethodConnect:
		return req, &Error{Fault: Unsupported, Reason: "CONNECT cannot pass this gateway"}
	}
	if l.upgrade {
		return req, &Error{Fault: Unsupported, Reason: "an upgrade to another protocol cannot pass this gateway"}
	}
	switch {
	case len(r.TransferEncoding) > 0:
		h.body = bodyChunked
	case r.ContentLength > 0:
		h.body, h.length = bodyLength, r.ContentLength
	case r.ContentLength < 0:
		return req, malformed("the body of a request has no length")
	}
	if expect := r.Header["Expect"]; len(expect) > 0 && !l.old {
		if len(expect) > 1 || !strings.EqualFold(expect[0], "100-continue") {
			return req, &Error{Fault: Unsupported, Reason: "the expectation is not 100-continue", status: http.StatusExpectationFailed}
		}
		if h.body != bodyNone {
			h.interim = "HTTP/1.1 100 Continue\r\n\r\n"
		}
	}
	return req, nil
}

// response parses the header block of the response to req.
func (h *httpHead) response(head []byte, l *linter, req *Request) error {
	*h = httpHead{}
	p := parsers.Get().(*parser)
	defer p.release()
	of := getRequest
	if req.head {
		of = headRequest
	}
	r, err := http.ReadResponse(p.reset(head), of)
	if err != nil {
		return malformed("%s", err)
	}
	code := r.StatusCode
	if code == http.StatusSwitchingProtocols || code < 100 || code > 999 {
		return malformed("the status %d is no answer", code)
	}
	if (code < 200 || code == http.StatusNoContent) && (l.codings > 0 || l.lengths > 0 && !l.zero) {
		return malformed("a response of status %d has a body", code)
	}
	h.close = r.Close
	switch {
	case code < 200:
		// The gateway of the client has answered its expectation, and other interim
		// responses are for clients of HTTP/1.1.
		h.skip = code == http.StatusContinue || req.old
		h.body = bodyNext
	case req.head || code == http.StatusNoContent || code == http.StatusNotModified:
	case len(r.TransferEncoding) > 0:
		h.body = bodyChunked
	case r.ContentLength > 0:
		h.body, h.length = bodyLength, r.ContentLength
	case r.ContentLength < 0:
		h.body = bodyUntilClose
	}
	return nil
}

// What a response answers, for net/http, which keeps no more than the pointer.
var (
	getRequest  = &http.Request{Method: http.MethodGet}
	headRequest = &http.Request{Method: http.MethodHead}
)

// httpMethod returns the method from a fixed list, or nothing.
func httpMethod(method string) string {
	for _, m := range [...]string{
		http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete,
		http.MethodPatch, http.MethodOptions, http.MethodTrace, http.MethodConnect,
	} {
		if m == method {
			return m
		}
	}
	return ""
}
