// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/thread"
)

// boundSocket is an AF_UNIX socket with an address.
type boundSocket struct {
	Socket
	kind uint8  // SOCK_DGRAM, …
	file fileID // of a path
}

func (s *boundSocket) isDatagram() bool { return s.kind == unix.SOCK_DGRAM }

// fileID identifies a file the way the kernel does: by the inode and the device of
// its file system (unix_diag_vfs). The zero value is none.
type fileID struct {
	inode  uint32
	device uint32
}

func fileOf(stat *unix.Stat_t) fileID {
	// The kernel's own form of a device number, which stat does not use.
	return fileID{inode: uint32(stat.Ino), device: unix.Major(stat.Dev)<<20 | unix.Minor(stat.Dev)}
}

// listSockets asks every network namespace for its sockets and, at the same time, for
// their queues.
func (t *taking) listSockets(ctx context.Context, listQueues func(context.Context) (map[uint32]Queue, error)) error {
	failed := make(chan error, 1)
	go func() {
		failed <- thread.Apart(func() error { return t.listIn(ctx) })
	}()
	var queues map[uint32]Queue
	if listQueues != nil {
		queues, _ = listQueues(ctx)
	}
	if err := <-failed; err != nil {
		return err
	}
	for i := range t.sockets {
		s := &t.sockets[i]
		if q, known := queues[s.Inode]; known && s.isDatagram() {
			s.Queued, s.MaxQueued = &q.Datagrams, &q.Limit
		}
	}
	return nil
}

func (t *taking) listIn(ctx context.Context) error {
	for inode, fd := range t.namespaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := netns.Set(netns.NsHandle(fd)); err != nil {
			if !isDenied(err) {
				return fmt.Errorf("entering network namespace %d: %w", inode, err)
			}
			t.deny()
			continue
		}
		sockets, err := socketsHere()
		if err != nil {
			return fmt.Errorf("listing the sockets of network namespace %d: %w", inode, err)
		}
		limit := queueLimitHere()
		for _, s := range sockets {
			s.NetNS, s.MaxQueued = inode, limit
			t.sockets = append(t.sockets, s)
		}
	}
	return nil
}

// queueLimitHere is net.unix.max_dgram_qlen of the thread's network namespace, nil if
// that is unknown.
func queueLimitHere() *uint32 {
	text, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
	if err != nil {
		return nil
	}
	number, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return nil
	}
	// A socket takes it over as unsigned: -1 is no limit.
	limit := uint32(number)
	return &limit
}

// What to show of a socket, and the attributes in which it comes (linux/unix_diag.h).
const (
	showName  = 0x01
	showVFS   = 0x02
	showPeer  = 0x04
	showQueue = 0x10
	showUID   = 0x40

	attrName  = 0
	attrVFS   = 1
	attrPeer  = 2
	attrQueue = 4
	attrUID   = 7
)

// diagRequest is struct unix_diag_req.
type diagRequest struct {
	inode uint32 // 0: every one
	show  uint32
}

func (diagRequest) Len() int { return 24 }

func (r diagRequest) Serialize() []byte {
	b := []byte{unix.AF_UNIX, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // in every state
	b = binary.NativeEndian.AppendUint32(b, r.inode)
	b = binary.NativeEndian.AppendUint32(b, r.show)
	return binary.NativeEndian.AppendUint64(b, ^uint64(0)) // no cookie
}

// dumpTries is how often a listing is begun anew because sockets came or went.
const dumpTries = 3

// socketsHere lists the bound sockets of the thread's network namespace.
func socketsHere() (sockets []boundSocket, err error) {
	for range dumpTries {
		sockets = sockets[:0]
		request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		request.AddData(diagRequest{show: showName | showVFS | showQueue | showUID})
		err = request.ExecuteIter(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(message []byte) bool {
			if s, ok := parseDiag(message); ok {
				sockets = append(sockets, s)
			}
			return true
		})
		if errors.Is(err, unix.ENOENT) {
			// sock_diag_rcv_msg knows no handler for the family, and could load none.
			return nil, errors.New("this kernel cannot list AF_UNIX sockets: it has no unix_diag, nor the module of that name")
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return sockets, err
		}
	}
	// What is there is right, if not complete.
	return sockets, nil
}

// diagSize is that of struct unix_diag_msg.
const diagSize = 16

// parseDiag reads a struct unix_diag_msg and the attributes behind it. ok is false
// for a socket without an address.
func parseDiag(message []byte) (s boundSocket, ok bool) {
	if len(message) < diagSize || message[0] != unix.AF_UNIX {
		return s, false
	}
	s.kind = message[1]
	s.Inode = binary.NativeEndian.Uint32(message[4:])
	attrs, err := nl.ParseRouteAttr(message[diagSize:])
	if err != nil {
		return s, false
	}
	for _, a := range attrs {
		switch {
		case a.Attr.Type == attrName:
			s.Address = parseAddress(a.Value)
		case a.Attr.Type == attrVFS && len(a.Value) >= 8:
			s.file = fileID{binary.NativeEndian.Uint32(a.Value), binary.NativeEndian.Uint32(a.Value[4:])}
		case a.Attr.Type == attrQueue && len(a.Value) >= 4:
			s.NextBytes = binary.NativeEndian.Uint32(a.Value)
		case a.Attr.Type == attrUID && len(a.Value) >= 4:
			uid := binary.NativeEndian.Uint32(a.Value)
			s.UID = &uid
		}
	}
	return s, s.Address != ""
}

// parseAddress makes of sun_path a path, or "@" and an abstract name.
func parseAddress(name []byte) string {
	if len(name) > 0 && name[0] == 0 {
		return "@" + string(name[1:])
	}
	path, _, _ := bytes.Cut(name, []byte{0})
	return string(path)
}

// addMountedNamespaces adds the network namespaces that are bound to a name, as
// ip netns and docker do, whether a process is in them or not.
func (t *taking) addMountedNamespaces() {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 5 || !strings.HasPrefix(fields[3], "net:[") {
			continue
		}
		if inode, ok := parseInode([]byte(fields[3]), "net"); ok {
			if _, known := t.namespaces[inode]; known {
				continue
			}
		}
		fd, err := unix.Open(unescapeMount(fields[4]), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			t.addNamespace(fd)
		} else if isDenied(err) {
			t.deny()
		}
	}
}

// unescapeMount undoes the octal escapes of mountinfo.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
