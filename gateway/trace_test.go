package gateway

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/tougw/tougw/translate"
)

// TestRequestWithoutServer: where there is no address programs see none, and people a
// dash.
func TestRequestWithoutServer(t *testing.T) {
	r := &translate.Record{Client: netip.MustParseAddrPort("10.0.0.1:32768")}
	if got := requestOf(r); got.Client != "10.0.0.1:32768" || got.Server != "" {
		t.Errorf("client %s, server %s", got.Client, got.Server)
	}
	var out bytes.Buffer
	accessLog(slog.New(slog.NewTextHandler(&out, nil)))(r)
	if !strings.Contains(out.String(), "client=10.0.0.1:32768 server=- ") {
		t.Error(out.String())
	}
}
