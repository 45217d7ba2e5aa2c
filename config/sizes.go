package config

import (
	"math"
	"strconv"
	"strings"
)

// sizeUnits are the units of sizes, the largest first.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// size returns a number of bytes, such as 8MiB or 65536.
func (d *decoder) size(s *scalar, def, lo, hi int64) int64 {
	v, ok := d.word(s, "a size such as 8MiB")
	if !ok {
		return def
	}
	number, unit := v, int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(v, u.name); ok && n != "" && isDigit(n[len(n)-1]) {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		d.errorf(&s.at, "%s is not a size such as 65536, 512KiB or 8MiB", quote(v))
		return def
	}
	if n > math.MaxInt64/uint64(unit) || int64(n)*unit < lo || int64(n)*unit > hi {
		d.errorf(&s.at, "%s is not in %s to %s", v, shortSize(lo), shortSize(hi))
		return def
	}
	return int64(n) * unit
}

// bitRate returns a number of bits a second, such as 25Gbit, or 0 for off.
func (d *decoder) bitRate(s *scalar, def, lo, hi int64) int64 {
	v, ok := d.word(s, "a rate such as 25Gbit")
	if !ok || v == "0" {
		return def
	}
	for _, u := range rateUnits {
		number, ok := strings.CutSuffix(v, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 63)
		if err != nil {
			break
		}
		if n > math.MaxInt64/uint64(u.bits) || int64(n)*u.bits < lo || int64(n)*u.bits > hi {
			d.errorf(&s.at, "%s is not in %s to %s, nor 0 for off", v, shortRate(lo), shortRate(hi))
			return def
		}
		return int64(n) * u.bits
	}
	d.errorf(&s.at, "%s is not a rate such as 400Mbit or 25Gbit", quote(v))
	return def
}

// rateUnits are the units of rates, in powers of 1000 as on links.
var rateUnits = []struct {
	name string
	bits int64
}{{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}}

func shortRate(n int64) string {
	for _, u := range rateUnits {
		if n%u.bits == 0 {
			return strconv.FormatInt(n/u.bits, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "bit"
}

func shortSize(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
