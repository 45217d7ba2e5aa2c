// Package wire reads packet captures and says whether anything but a DTLS
// tunnel was on the path.
package wire
