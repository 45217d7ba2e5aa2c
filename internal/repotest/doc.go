// Package repotest holds tests of the repository as a whole: which package may
// import which, and that everything a reader meets is documented. It contains
// no code of its own.
package repotest
