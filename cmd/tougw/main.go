// Command tougw carries TCP over UDP between gateways: it captures flows at one
// side and ends them at the other. This package knows flags, signals and exit
// codes; what the commands do is in the packages that they call.
//
// The exit code is 0 when a command did what it was asked, 1 when it failed, and
// 2 when it was called wrongly. Errors are on stderr.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
