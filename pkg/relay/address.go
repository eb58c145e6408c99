// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SocketName is the name of a relay's socket in its directory, outside and inside of the
// container. runc and podman use the same.
const SocketName = "notify.sock"

// Address is that of a notify socket, as NOTIFY_SOCKET holds it (sd_notify(3)).
// The zero value is no address.
type Address struct {
	text  string
	vsock *vsockAddress // nil: AF_UNIX
}

type vsockAddress struct {
	cid, port uint32
	kind      int // unix.SOCK_*; 0: whichever works
}

// sunPathMax is the longest name in a struct sockaddr_un: 108 bytes, with the
// NUL that ends a path, or that begins an abstract name.
const sunPathMax = 107

// ParseAddress reads "/path", "@abstract", "vsock:CID:PORT", "vsock-stream:CID:PORT",
// "vsock-seqpacket:CID:PORT" or "vsock-dgram:CID:PORT" (systemd: socket_address_parse,
// as pid_notify_with_fds_internal uses it). A path may be longer than sun_path.
func ParseAddress(s string) (Address, error) {
	a := Address{text: s}
	switch {
	case s == "":
		return Address{}, errors.New("no address of a notify socket")
	case strings.ContainsRune(s, 0):
		return Address{}, fmt.Errorf("address %q holds a NUL byte", s)
	case strings.HasPrefix(s, "/") && len(s) > 1 && !strings.HasSuffix(s, "/"):
		return a, nil
	case strings.HasPrefix(s, "@") && len(s) > 1:
		if len(s)-1 > sunPathMax {
			return Address{}, fmt.Errorf("abstract address %q is longer than %d bytes", s, sunPathMax)
		}
		return a, nil
	case strings.HasPrefix(s, "vsock"):
		var err error
		if a.vsock, err = parseVsock(s); err != nil {
			return Address{}, fmt.Errorf("address %q: %w", s, err)
		}
		return a, nil
	}
	return Address{}, fmt.Errorf("address %q is neither /path, @abstract nor vsock:CID:PORT", s)
}

func parseVsock(s string) (*vsockAddress, error) {
	kinds := map[string]int{
		"vsock": 0, "vsock-stream": unix.SOCK_STREAM,
		"vsock-seqpacket": unix.SOCK_SEQPACKET, "vsock-dgram": unix.SOCK_DGRAM,
	}
	fields := strings.Split(s, ":")
	kind, known := kinds[fields[0]]
	if !known || len(fields) != 3 {
		return nil, errors.New("want vsock[-stream|-seqpacket|-dgram]:CID:PORT")
	}
	cid, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil || cid == unix.VMADDR_CID_ANY {
		return nil, errors.New("want the number of a machine as CID")
	}
	port, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil || port == unix.VMADDR_PORT_ANY {
		return nil, errors.New("want a port number")
	}
	return &vsockAddress{uint32(cid), uint32(port), kind}, nil
}

// String returns the address as it was written.
func (a Address) String() string { return a.text }

// isAbstract reports whether the address lives in a network namespace and not
// in a file system.
func (a Address) isAbstract() bool { return strings.HasPrefix(a.text, "@") }
