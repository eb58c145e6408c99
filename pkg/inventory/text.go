// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// WriteTable writes two tables for people: of the sockets, and of the clients. A
// socket is called by the path of its file, if that is known.
// hostNetNS is the network namespace that is called "host" in them; 0 is none.
func (inv *Inventory) WriteTable(w io.Writer, hostNetNS uint64) error {
	table := newTable(w)
	if len(inv.Sockets) > 0 {
		fmt.Fprintln(table, "SOCKET\tINODE\tNETNS\tFILE\tOWNER\tNEXT\tQUEUE\tHELD BY")
	}
	for i := range inv.Sockets {
		s := &inv.Sockets[i]
		mode, owner := s.File.columns()
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", events.FormatAddress(s.name()), s.Inode,
			netnsName(s.NetNS, hostNetNS), mode, owner, size(s.NextBytes), s.queue(), holderList(s.Holders))
	}
	if len(inv.Sockets) > 0 && len(inv.Clients) > 0 {
		fmt.Fprintln(table)
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if len(inv.Clients) > 0 {
		fmt.Fprintln(table, "PROCESS\tBELONGS TO\tNETNS\tNOTIFY_SOCKET\tLEADS TO")
	}
	holders := inv.holders()
	for i := range inv.Clients {
		c := &inv.Clients[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", printable(c.String()), c.group(), netnsName(c.NetNS, hostNetNS),
			events.FormatAddress(c.NotifySocket), c.leadsTo(holders))
	}
	return table.Flush()
}

// WriteTree writes what belongs to what: a unit or container, its processes, and
// of each the sockets it holds and the one it is to notify.
func (inv *Inventory) WriteTree(w io.Writer) error {
	type branch struct {
		process Process
		leaves  []string
	}
	processes := make(map[int]*branch)
	add := func(p Process, leaf string) {
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
		leaf := fmt.Sprintf("holds %s (socket %d)%s", events.FormatAddress(s.name()), s.Inode, s.File.warning())
		for _, p := range s.Holders {
			add(p, leaf)
		}
		if len(s.Holders) == 0 {
			unheld = append(unheld, leaf)
		}
	}
	holders := inv.holders()
	for i := range inv.Clients {
		c := &inv.Clients[i]
		add(c.Process, fmt.Sprintf("notifies %s: %s", events.FormatAddress(c.NotifySocket), c.leadsTo(holders)))
	}
	groups := make(map[string][]*branch)
	for _, b := range processes {
		key := b.process.groupKey()
		groups[key] = append(groups[key], b)
	}
	var out strings.Builder
	for _, key := range sortedKeys(groups) {
		branches := groups[key]
		fmt.Fprintln(&out, branches[0].process.group())
		slices.SortFunc(branches, func(a, b *branch) int { return cmp.Compare(a.process.PID, b.process.PID) })
		for i, b := range branches {
			twig, indent := twigs(i == len(branches)-1)
			fmt.Fprintf(&out, "%s%s\n", twig, printable(b.process.String()))
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

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

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

// holders finds the processes by the socket they hold.
func (inv *Inventory) holders() map[uint32][]Process {
	holders := make(map[uint32][]Process)
	for _, s := range inv.Sockets {
		holders[s.Inode] = s.Holders
	}
	return holders
}

// columns are the mode and the owner of a file.
func (f *File) columns() (mode, owner string) {
	switch {
	case f == nil:
		return "-", "-"
	case f.State == FileMissing:
		return string(f.State), "-"
	case f.State == FileReplaced:
		return string(f.State), fmt.Sprintf("%d:%d", *f.UID, *f.GID)
	}
	return f.Mode, fmt.Sprintf("%d:%d", *f.UID, *f.GID)
}

// warning is for a socket that nobody can reach by its name.
func (f *File) warning() string {
	switch {
	case f == nil || f.State == FileThere:
		return ""
	case f.State == FileMissing:
		return ", the file is gone"
	}
	return ", another file has its name"
}

// group is what a process belongs to: its container, else its unit, else its
// control group.
func (p *Process) group() string {
	switch {
	case p.Container != nil && p.Container.ID != "":
		runtime := cmp.Or(p.Container.Runtime, "container")
		return printable(runtime + ":" + cmp.Or(p.Container.Name, shortID(p.Container.ID)))
	case p.UserUnit != "":
		return printable(p.Unit + "/" + p.UserUnit)
	}
	return printable(cmp.Or(p.Unit, p.Cgroup, "-"))
}

// groupKey tells containers of the same name apart. Groups are in its order.
func (p *Process) groupKey() string {
	if p.Container == nil {
		return p.group()
	}
	return p.group() + "\x00" + p.Container.ID
}

// shortID cuts a random id the way the runtimes do.
func shortID(id string) string {
	const whole, short = 64, 12
	if len(id) == whole {
		return id[:short]
	}
	return id
}

// leadsTo says what NOTIFY_SOCKET leads to.
func (c *Client) leadsTo(holders map[uint32][]Process) string {
	switch c.State {
	case ClientOK:
		return fmt.Sprintf("socket %d of %s", c.Inode, holderList(holders[c.Inode]))
	case ClientMissing:
		return "NO SUCH FILE"
	case ClientNobody:
		return "NOBODY LISTENS"
	case ClientNotSocket:
		return "NOT A SOCKET"
	case ClientWrongType:
		return "NOT A DATAGRAM SOCKET"
	case ClientVsock:
		return "another machine"
	case ClientInvalid:
		return "NOT AN ADDRESS"
	}
	return "unknown"
}

// holderList names the holders; of many only the first.
func holderList(holders []Process) string {
	const most = 3
	if len(holders) == 0 {
		return "no process found"
	}
	var names []string
	for _, p := range holders[:min(most, len(holders))] {
		name := printable(p.String())
		if group := p.group(); group != "-" {
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

// queue is how many datagrams wait, and their limit.
func (s *Socket) queue() string {
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

// printable makes text of what others have chosen.
func printable(s string) string { return events.FormatAddress(s) }
