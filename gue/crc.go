package gue

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// zeros is padding. It is not local because crc32 hands it to a function that
// the compiler cannot see through.
var zeros [3]byte

// altCRC is the alternate checksum (extensions-06 §10.3): CRC-32C over the
// header, whose CRC and GUE checksum are zero, and the covered payload, padded
// with zeros to a multiple of four. The draft says nothing of initial value,
// inversion and byte order; we use the common CRC-32C in network byte order.
func altCRC(header, covered []byte) uint32 {
	c := crc32.Update(0, castagnoli, header)
	c = crc32.Update(c, castagnoli, covered)
	return crc32.Update(c, castagnoli, zeros[:-len(covered)&3])
}
