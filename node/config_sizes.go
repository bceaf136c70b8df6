package node

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// sizeUnits are the units of ParseSize, in lower case. One letter is binary, as in
// most tools; "GB" is what the standards say it is.
var sizeUnits = map[string]int64{
	"": 1, "b": 1,
	"k": 1 << 10, "ki": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mi": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gi": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "ti": 1 << 40, "tib": 1 << 40, "tb": 1e12,
	"p": 1 << 50, "pi": 1 << 50, "pib": 1 << 50, "pb": 1e15,
}

// MaxSize is the largest size that ParseSize accepts, 1 EiB.
const MaxSize = 1 << 60

// ParseSize reads a number of bytes as a person writes it: 20GiB, 1.5g, 512 MiB,
// 1_000_000. K, M, G, T and P, with or without iB, are powers of 1024; kB, MB and so on
// powers of 1000. A fraction of a byte is rounded up.
func ParseSize(s string) (int64, error) {
	text := strings.TrimSpace(s)
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' && r != '_' })
	if end < 0 {
		end = len(text)
	}
	number, unit := text[:end], strings.ToLower(strings.TrimSpace(text[end:]))
	factor, ok := sizeUnits[unit]
	if !ok || len(number) > 40 {
		return 0, badSize(s)
	}
	if !digitsOK(number) {
		return 0, badSize(s)
	}
	value, ok := new(big.Rat).SetString(strings.ReplaceAll(number, "_", ""))
	if !ok {
		return 0, badSize(s)
	}
	value.Mul(value, new(big.Rat).SetInt64(factor))
	if value.Cmp(new(big.Rat).SetInt64(MaxSize)) > 0 {
		return 0, fmt.Errorf("%q is more than 1 EiB", s)
	}
	whole, rest := new(big.Int).QuoRem(value.Num(), value.Denom(), new(big.Int))
	if rest.Sign() != 0 {
		whole.Add(whole, big.NewInt(1))
	}
	return whole.Int64(), nil
}

func badSize(s string) error {
	return fmt.Errorf("%q is not a size: write a number of bytes with or without a unit, such as 20GiB, 512MiB or 1_000_000", s)
}

// digitsOK demands digits on both sides of a point and of each underscore.
func digitsOK(s string) bool {
	points := 0
	digit := func(i int) bool { return i >= 0 && i < len(s) && s[i] >= '0' && s[i] <= '9' }
	for i := range len(s) {
		if digit(i) {
			continue
		}
		if s[i] == '.' {
			points++
		}
		if points > 1 || !digit(i-1) || !digit(i+1) {
			return false
		}
	}
	return s != ""
}

// ExactSize writes a size in the largest unit that loses nothing, so that ParseSize
// reads the same: 20GiB, 1000000.
func ExactSize(n int64) string {
	for _, u := range [...]struct {
		name  string
		bytes int64
	}{{"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// HumanSize writes a size for reading, in three digits and a binary unit: 1.50 GiB.
func HumanSize(n int64) string {
	if n < 0 && n != math.MinInt64 {
		return "-" + HumanSize(-n)
	}
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value := float64(n)
	units := [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for i, unit := range units {
		value /= 1 << 10
		if value < 999.5 || i == len(units)-1 {
			digits := 2
			switch {
			case value >= 99.95:
				digits = 0
			case value >= 9.995:
				digits = 1
			}
			return strconv.FormatFloat(value, 'f', digits, 64) + " " + unit
		}
	}
	return ""
}
