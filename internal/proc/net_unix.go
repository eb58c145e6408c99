// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"strconv"
)

// ParseNetUnix reads a line of /proc/PID/net/unix: Num RefCount Protocol Flags Type St Inode
// Path, of which the last may hold blanks. The address is "" for a socket that has none.
func ParseNetUnix(line []byte) (inode uint32, address string) {
	rest := bytes.TrimSuffix(line, []byte{'\n'})
	var last []byte
	for range 7 {
		rest = bytes.TrimLeft(rest, " ")
		last, rest, _ = bytes.Cut(rest, []byte{' '})
	}
	number, err := strconv.ParseUint(string(last), 10, 32)
	if err != nil {
		return 0, ""
	}
	return uint32(number), string(rest)
}
