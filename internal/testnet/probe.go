package testnet

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Probe tries to make two namespaces and a veth pair between them, once per
// process, and returns why that fails, or nil.
var Probe = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("testnet: namespaces need root")
	}
	r, err := newRun()
	if err != nil {
		return err
	}
	defer r.end()
	a, err := newNamespace(r.name("probe1"))
	if err != nil {
		return err
	}
	defer a.close()
	b, err := newNamespace(r.name("probe2"))
	if err != nil {
		return err
	}
	defer b.close()
	return connect(a, "p0", b, "p0")
})

// Required is the environment variable that turns the skip of Require into a
// failure, for runs that are worthless without these tests.
const Required = "TESTNET_REQUIRED"

// Require skips the test where Probe fails.
func Require(t testing.TB) {
	t.Helper()
	err := Probe()
	switch {
	case err == nil:
	case os.Getenv(Required) != "":
		t.Fatalf("%v, and %s is set", err, Required)
	default:
		t.Skip(err)
	}
}
