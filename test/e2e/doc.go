// Package e2e holds the end-to-end tests: the daemon as it is shipped, real
// programs, and networks of namespaces (package testnet draws them). They need
// root and are skipped without; `make test` insists on them.
//
// The variables TOUGW, the binary to test (built when unset), and TOUGW_LONG,
// which adds what takes minutes, come from the Makefile. What a failed test
// leaves to look at (logs, configuration, status, packets seen at both
// gateways) is in e2e-results/TEST.
package e2e
