// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/internal/timespan"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// Sockets writes two tables for people: of the sockets, and of the clients. A
// socket is called by the path of its file, if that is known.
// hostNetNS is the network namespace that is called "host" in them; 0 is none.
func Sockets(w io.Writer, inv *inventory.Inventory, hostNetNS uint64) error {
	var sockets, clients table
	for i := range inv.Sockets {
		s := &inv.Sockets[i]
		if i == 0 {
			sockets.add("SOCKET", "INODE", "NETNS", "FILE", "OWNER", "NEXT", "QUEUE", "HELD BY")
		}
		mode, owner := fileColumns(s.File)
		sockets.add(string(appendWord(nil, string(s.Name()))), strconv.Itoa(int(s.Inode)), netnsName(s.NetNS, hostNetNS), mode, owner,
			size(s.NextBytes), queueColumn(s), holderList(s.Holders))
	}
	holders := holdersOf(inv)
	for i := range inv.Clients {
		c := &inv.Clients[i]
		if i == 0 {
			clients.add("PROCESS", "BELONGS TO", "NETNS", "NOTIFY_SOCKET", "WATCHDOG", "LEADS TO")
		}
		clients.add(nameOf(&c.Process), groupOf(&c.Process), netnsName(c.NetNS, hostNetNS), notifySocket(c),
			watchdogColumn(c.Watchdog), leadsTo(c, holders))
	}
	between := ""
	if len(inv.Sockets) > 0 && len(inv.Clients) > 0 {
		between = "\n"
	}
	_, err := io.WriteString(w, sockets.String()+between+clients.String())
	return err
}

// SocketTree writes what belongs to what: a unit or container, its processes, and
// of each the sockets it holds and the one it is to notify.
func SocketTree(w io.Writer, inv *inventory.Inventory) error {
	type branch struct {
		process inventory.Process
		leaves  []string
	}
	processes := make(map[int]*branch)
	add := func(p inventory.Process, leaf string) {
		b := processes[p.PID]
		if b == nil {
			b = &branch{process: p}
			processes[p.PID] = b
		}
		b.leaves = append(b.leaves, leaf)
	}
	var unheld []string
	for i := range inv.Sockets {
		s := &inv.Sockets[i]
		leaf := fmt.Sprintf("holds %s (socket %d)%s", s.Name(), s.Inode, fileWarning(s.File))
		for _, p := range s.Holders {
			add(p, leaf)
		}
		if len(s.Holders) == 0 {
			unheld = append(unheld, leaf)
		}
	}
	holders := holdersOf(inv)
	for i := range inv.Clients {
		c := &inv.Clients[i]
		leaf := fmt.Sprintf("notifies %s: %s", notifySocket(c), leadsTo(c, holders))
		if c.Watchdog != nil {
			leaf += ", watchdog " + watchdogColumn(c.Watchdog)
		}
		add(c.Process, leaf)
	}
	groups := make(map[string][]*branch)
	for _, b := range processes {
		key := groupKey(&b.process)
		groups[key] = append(groups[key], b)
	}
	var out strings.Builder
	for _, key := range sortedKeys(groups) {
		branches := groups[key]
		fmt.Fprintln(&out, groupOf(&branches[0].process))
		slices.SortFunc(branches, func(a, b *branch) int { return cmp.Compare(a.process.PID, b.process.PID) })
		for i, b := range branches {
			twig, indent := twigs(i == len(branches)-1)
			fmt.Fprintf(&out, "%s%s\n", twig, nameOf(&b.process))
			for j, leaf := range b.leaves {
				twig, _ := twigs(j == len(b.leaves)-1)
				fmt.Fprintf(&out, "%s%s%s\n", indent, twig, leaf)
			}
		}
	}
	if len(unheld) > 0 {
		fmt.Fprintln(&out, "(no process found)")
	}
	for i, leaf := range unheld {
		twig, _ := twigs(i == len(unheld)-1)
		fmt.Fprintf(&out, "%s%s\n", twig, leaf)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// twigs are what stands in front of an entry, and of those below it.
func twigs(last bool) (own, below string) {
	if last {
		return "└─ ", "   "
	}
	return "├─ ", "│  "
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// holdersOf finds the processes by the socket they hold.
func holdersOf(inv *inventory.Inventory) map[uint32][]inventory.Process {
	holders := make(map[uint32][]inventory.Process)
	for _, s := range inv.Sockets {
		holders[s.Inode] = s.Holders
	}
	return holders
}

// fileColumns are the mode and the owner of a file.
func fileColumns(f *inventory.File) (mode, owner string) {
	switch {
	case f == nil:
		return "-", "-"
	case f.State == inventory.FileMissing:
		return string(f.State), "-"
	case f.State == inventory.FileReplaced:
		return string(f.State), fmt.Sprintf("%d:%d", *f.UID, *f.GID)
	}
	return f.Mode, fmt.Sprintf("%d:%d", *f.UID, *f.GID)
}

// fileWarning is for a socket that nobody can reach by its name.
func fileWarning(f *inventory.File) string {
	switch {
	case f == nil || f.State == inventory.FileThere:
		return ""
	case f.State == inventory.FileMissing:
		return ", the file is gone"
	}
	return ", another file has its name"
}

// groupOf is what a process belongs to.
// nameOf is what a process is called.
func nameOf(p *inventory.Process) string { return string(appendProcess(nil, p.Comm, uint32(p.PID))) }

func groupOf(p *inventory.Process) string { return string(appendGroup(nil, &p.Identity, "")) }

// groupKey tells containers of the same name apart. Groups are in its order.
func groupKey(p *inventory.Process) string {
	if p.Container == nil {
		return groupOf(p)
	}
	return groupOf(p) + "\x00" + p.Container.ID
}

// leadsTo says what NOTIFY_SOCKET leads to.
func leadsTo(c *inventory.Client, holders map[uint32][]inventory.Process) string {
	switch c.State {
	case inventory.ClientOK:
		return fmt.Sprintf("socket %d of %s", c.Inode, holderList(holders[c.Inode]))
	case inventory.ClientMissing:
		return "NO SUCH FILE"
	case inventory.ClientNobody:
		return "NOBODY LISTENS"
	case inventory.ClientNotSocket:
		return "NOT A SOCKET"
	case inventory.ClientWrongType:
		return "NOT A DATAGRAM SOCKET"
	case inventory.ClientVsock:
		return "another machine"
	case inventory.ClientInvalid:
		return "NOT AN ADDRESS"
	case inventory.ClientDenied:
		return "NOT ALLOWED: " + refusal(c)
	case inventory.ClientOverwritten:
		return "unknown: it has written over its environment"
	}
	return "unknown"
}

// refusal says what a client may not do.
func refusal(c *inventory.Client) string {
	who := "it"
	if c.UID != nil {
		who = fmt.Sprintf("uid %d", *c.UID)
	}
	what := "search"
	if c.Denied.IsSocket {
		what = "write to"
	}
	return fmt.Sprintf("%s may not %s %s (%s %d:%d)", who, what, c.Denied.Path, c.Denied.Mode, c.Denied.UID, c.Denied.GID)
}

// notifySocket is the value of a client's NOTIFY_SOCKET.
func notifySocket(c *inventory.Client) string {
	if c.State == inventory.ClientOverwritten {
		return "?"
	}
	return events.Escape(c.NotifySocket)
}

// watchdogColumn is how often a client is to send pings, and what is wrong about that.
func watchdogColumn(w *inventory.Watchdog) string {
	switch {
	case w == nil:
		return "-"
	case w.State == inventory.WatchdogInvalid:
		return "INVALID"
	}
	every := timespan.Format(time.Duration(min(*w.USec, math.MaxInt64/1000)) * time.Microsecond)
	if w.State == inventory.WatchdogOther {
		return fmt.Sprintf("%s OF PID %d", every, *w.PID)
	}
	return every
}

// holderList names the holders; of many only the first.
func holderList(holders []inventory.Process) string {
	const most = 3
	if len(holders) == 0 {
		return "no process found"
	}
	var names []string
	for _, p := range holders[:min(most, len(holders))] {
		name := nameOf(&p)
		if group := groupOf(&p); group != "-" {
			name += " " + group
		}
		names = append(names, name)
	}
	if len(holders) > most {
		names = append(names, fmt.Sprintf("%d more", len(holders)-most))
	}
	return strings.Join(names, ", ")
}

func netnsName(inode, host uint64) string {
	switch inode {
	case 0:
		return "-"
	case host:
		return "host"
	}
	return strconv.FormatUint(inode, 10)
}

func size(bytes uint32) string {
	if bytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%d B", bytes)
}

// queueColumn is how many datagrams wait, and their limit.
func queueColumn(s *inventory.Socket) string {
	if s.Queued == nil && s.MaxQueued == nil {
		return "-"
	}
	return known(s.Queued) + "/" + known(s.MaxQueued)
}

func known(n *uint32) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatUint(uint64(*n), 10)
}
