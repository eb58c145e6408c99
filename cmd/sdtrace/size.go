// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// size is a number of bytes on the command line: 4194304, 4096K or 4M.
type size uint32

// units are 1024 times another each.
const units = "KMG"

// Set reads one.
func (s *size) Set(text string) error {
	digits, shift := text, 0
	if i := strings.IndexByte(units, lastByte(strings.ToUpper(text))); i >= 0 {
		digits, shift = text[:len(text)-1], 10*(i+1)
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > math.MaxUint32>>shift {
		return errors.New("want a number of bytes below 4G, such as 4194304, 4096K or 4M")
	}
	*s = size(n << shift)
	return nil
}

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

// String is the shortest way to write it.
func (s *size) String() string {
	n, unit := *s, ""
	for i := 0; i < len(units) && n != 0 && n%1024 == 0; i++ {
		n, unit = n/1024, units[i:i+1]
	}
	return strconv.FormatUint(uint64(n), 10) + unit
}

// Type is what help calls it.
func (s *size) Type() string { return "SIZE" }
