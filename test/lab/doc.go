// Package lab runs the product in the networks of internal/testnet: it makes
// identities with `tougw keygen`, writes configuration files, starts daemons
// and asks them, and it starts the real programs (nginx, iperf3, sshd) whose
// traffic goes through. The end-to-end tests, the demo and the benchmarks are
// built from it.
//
// Everything that a Lab makes is in one folder, logs included, and ends with
// Lab.Close.
package lab
