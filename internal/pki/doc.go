// Package pki makes and loads the credentials of tougw: a certificate
// authority, identities that it signs, and pre-shared keys.
//
// [CA], [Identity] and [PSK] are what `tougw keygen` runs; they never overwrite
// a file, and a file appears under its name only when it is complete.
// [LoadCertificate], [LoadRoots], [LoadPSK] and [LoadPSKDir] are how the
// configuration is checked and how the gateway gets its credentials; every
// error of theirs names the file.
//
// An identity is a DNS name in lower case, in the subject alternative name of
// an X.509 v3 certificate (RFC 5280 section 4.2.1.6). The common name is
// neither written nor read. Keys are ECDSA on P-256, which every DTLS 1.2
// library can verify.
//
// All functions may be called concurrently.
package pki
