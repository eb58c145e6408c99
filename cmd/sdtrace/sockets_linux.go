// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdtrace/sdtrace/internal/enrich/names"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

func newSocketsCommand() *cobra.Command {
	var options inventory.Options
	var filters filterFlags
	var output string
	var tree bool
	cmd := &cobra.Command{
		Use:   "sockets [flags]",
		Short: "List the notify sockets of this host, and who is to use them",
		Long: `sockets lists, at this moment, in every network namespace, each datagram socket
that is or could be a notify socket, with the processes that hold it and how many
datagrams wait in it, and each process with NOTIFY_SOCKET in its environment (as that was
when the process was executed), with what that leads to from this process's root
directory and network namespace, and whether this process's user may send there.
A service that has written over its environment is listed with ?.

A socket counts when its name is that of a notify socket (…/systemd/notify,
/run/host/notify, …/notify.sock, …/notify/notify), or when some process's
NOTIFY_SOCKET leads to it. The exit status is 1 when the list is not complete: something
may not be looked at, as without root, or does not answer in time, which is named.

Filters choose processes, as those of a capture choose senders: they are combined with AND,
repeated ones with OR. A socket is listed with the processes that hold it or lead to it.`,
		Example: `  sudo sdtrace sockets                   two tables
  sudo sdtrace sockets --tree            by unit and container
  sudo sdtrace sockets -o json | jq 'select(.type=="client" and .state!="ok")'
  sudo sdtrace sockets --unit nginx      what nginx.service is to notify
  sudo sdtrace sockets --failed          who cannot reach what it is to notify
  sudo sdtrace sockets --all             every AF_UNIX datagram socket`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case output != "text" && output != "json":
				return usage(cmd, fmt.Errorf("unknown output format %q: want text or json", output))
			case tree && output == "json":
				return usage(cmd, errors.New("--tree is text: it does not go with -o json"))
			}
			filter, err := newSocketFilter(cmd, &filters)
			if err != nil {
				return err
			}
			return listSockets(cmd, options, filter, output, tree)
		},
	}
	set := cmd.Flags()
	set.SortFlags = false
	set.BoolVar(&tree, "tree", false, "as a tree: unit or container, process, socket")
	set.StringVarP(&output, "output", "o", "text", "output format: text or json (JSON Lines)")
	set.BoolVar(&options.All, "all", false, "every bound AF_UNIX datagram socket, not only notify sockets")
	filters.registerProcesses(set, "processes")
	set.StringArrayVar(&filters.match.Sockets, "socket", nil, "the socket `PATTERN`: a path or @abstract name; * and ? match any")
	set.BoolVar(&filters.match.Failed, "failed", false, "processes whose NOTIFY_SOCKET leads nowhere, or where they may not send")
	return cmd
}

func listSockets(cmd *cobra.Command, options inventory.Options, filter *socketFilter, output string, tree bool) error {
	inv, err := inventory.Take(cmd.Context(), options)
	if err != nil {
		return err
	}
	nameContainers(inv)
	filter.apply(inv)
	out := cmd.OutOrStdout()
	switch {
	case output == "json":
		err = inv.WriteJSON(out)
	case tree:
		err = render.SocketTree(out, inv)
	default:
		err = render.Sockets(out, inv, hostNetNS())
	}
	if err != nil {
		return err
	}
	if len(inv.Sockets) == 0 && len(inv.Clients) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "sdtrace: no notify socket, and no process with NOTIFY_SOCKET"+filter.suffix())
	}
	for _, missing := range inv.LeftOut {
		fmt.Fprintf(cmd.ErrOrStderr(), "sdtrace: this is not all: %s\n", events.Escape(missing))
	}
	if err := unreadable(inv.Unreadable); err != nil || len(inv.LeftOut) == 0 {
		return err
	}
	return &exitError{status: exitFailure}
}

// unreadable is an error that says what could not be looked at, nil for nothing.
func unreadable(names []string) error {
	if len(names) == 0 {
		return nil
	}
	const most = 5
	list := events.Escape(strings.Join(names[:min(most, len(names))], ", "))
	if len(names) > most {
		list += fmt.Sprintf(" and %d more", len(names)-most)
	}
	hint := ""
	if os.Geteuid() != 0 {
		hint = "; run it as root"
	}
	return fmt.Errorf("this is not all: not allowed to look at %s%s", list, hint)
}

// hostNetNS is the network namespace of process 1, 0 when that cannot be told.
func hostNetNS() uint64 {
	p, err := proc.Open(1)
	if err != nil {
		return 0
	}
	defer p.Close()
	inode, _ := p.Inode("ns/net", "net")
	return inode
}

// namesLimit is how long a list of sockets may wait for the names of containers.
const namesLimit = 200 * time.Millisecond

// nameContainers says what the containers of an inventory are called, as far as that is
// found out in time.
func nameContainers(inv *inventory.Inventory) {
	all := names.Watch()
	defer all.Close()
	var inside []*inventory.Process
	collect := func(p *inventory.Process) {
		if p.Container != nil {
			all.Name(names.KeyOf(&p.Identity)) // all are looked for at once
			inside = append(inside, p)
		}
	}
	for i := range inv.Sockets {
		for j := range inv.Sockets[i].Holders {
			collect(&inv.Sockets[i].Holders[j])
		}
	}
	for i := range inv.Clients {
		collect(&inv.Clients[i].Process)
	}
	end := time.Now().Add(namesLimit)
	for _, p := range inside {
		name, _ := all.NameWithin(names.KeyOf(&p.Identity), time.Until(end))
		name.Complete(&p.Identity)
	}
}
