// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

func number(n uint32) *uint32 { return &n }

// example is an inventory of a host with a container and what can go wrong.
func example() *inventory.Inventory {
	const id = "3f2a91c0d4e53f2a91c0d4e53f2a91c0d4e53f2a91c0d4e53f2a91c0d4e53f2a"
	systemd := inventory.Process{PID: 1, Comm: "systemd", Identity: events.Identity{Cgroup: "/init.scope", Unit: "init.scope"}, NetNS: 40}
	relay := inventory.Process{PID: 812, Comm: "sdtrace", Identity: events.Identity{Cgroup: "/system.slice/web.service", Unit: "web.service", Slice: "system.slice"}, NetNS: 40}
	app := inventory.Process{PID: 830, Comm: "app\x1b[2J\u009b", Identity: events.Identity{Container: &events.Container{Runtime: "docker", ID: id}}, NetNS: 52}
	user := inventory.Process{PID: 900, Comm: "syncd", Identity: events.Identity{Unit: "user@1000.service", UserUnit: "syncd.service"}, NetNS: 40}
	return &inventory.Inventory{
		Sockets: []inventory.Socket{
			{
				Address: "/run/systemd/notify", Inode: 21, NetNS: 40, UID: number(0), Notify: true, Queued: number(0), MaxQueued: number(512),
				File: &inventory.File{State: inventory.FileThere, Path: "/run/systemd/notify", Mode: "0777", UID: number(0), GID: number(0)}, Holders: []inventory.Process{systemd},
			},
			{
				Address: "/proc/self/fd/9/n", Inode: 22, NetNS: 40, Notify: true, NextBytes: 7, Queued: number(3), MaxQueued: number(0),
				File: &inventory.File{State: inventory.FileThere, Path: "/run/web/notify/notify.sock", Mode: "0666", UID: number(0), GID: number(0)}, Holders: []inventory.Process{relay},
			},
			{
				Address: "/run/old/notify.sock", Inode: 23, NetNS: 40, Notify: true, MaxQueued: number(10),
				File: &inventory.File{State: inventory.FileMissing}, Holders: []inventory.Process{relay, relay, relay, relay, relay},
			},
			{Address: "@a\x00b\n/notify.sock", Inode: 24, NetNS: 52, Notify: true},
		},
		Clients: []inventory.Client{
			{Process: relay, NotifySocket: "/run/systemd/notify", State: inventory.ClientOK, Inode: 21},
			{Process: app, NotifySocket: "/run/notify/notify.sock", State: inventory.ClientOK, Inode: 22},
			{Process: user, NotifySocket: "/run/user/1000/systemd/notify", State: inventory.ClientNobody},
			{Process: inventory.Process{PID: 901, Comm: "x"}, NotifySocket: "@y"},
		},
	}
}

func TestTable(t *testing.T) {
	inv := example()
	usec, pid, uid := uint64(2e6), uint32(7), uint32(53)
	longer := uint64(5400e6)
	inv.Clients[0].Watchdog = &inventory.Watchdog{State: inventory.WatchdogOK, USec: &usec}
	inv.Clients[3].Watchdog = &inventory.Watchdog{State: inventory.WatchdogInvalid}
	named := inventory.Process{PID: 903, Comm: "named"}
	inv.Clients = append(
		inv.Clients,
		inventory.Client{
			Process: inventory.Process{PID: 902, Comm: "nginx", Identity: events.Identity{Unit: "nginx.service"}},
			State:   inventory.ClientOverwritten,
		},
		inventory.Client{
			Process: named, NotifySocket: "/run/a/notify", State: inventory.ClientDenied, UID: &uid,
			Denied:   &inventory.Denied{Path: "/run/a", Mode: "0700"},
			Watchdog: &inventory.Watchdog{State: inventory.WatchdogOther, USec: &longer, PID: &pid},
		},
		inventory.Client{
			Process: named, NotifySocket: "/run/b/notify", State: inventory.ClientDenied,
			Denied: &inventory.Denied{Path: "/run/b/notify", IsSocket: true, Mode: "0600", UID: 1, GID: 2},
		},
	)
	var b strings.Builder
	if err := render.Sockets(&b, inv, 40); err != nil {
		t.Fatal(err)
	}
	want := `
SOCKET                       INODE  NETNS  FILE     OWNER  NEXT  QUEUE  HELD BY
/run/systemd/notify          21     host   0777     0:0    -     0/512  systemd[1] init.scope
/run/web/notify/notify.sock  22     host   0666     0:0    7 B   3/0    sdtrace[812] web.service
/run/old/notify.sock         23     host   missing  -      -     -/10   sdtrace[812] web.service, sdtrace[812] web.service, sdtrace[812] web.service, 2 more
@a\x00b\n/notify.sock        24     52     -        -      -     -      no process found

PROCESS                    BELONGS TO                       NETNS  NOTIFY_SOCKET                  WATCHDOG        LEADS TO
sdtrace[812]               web.service                      host   /run/systemd/notify            2s              socket 21 of systemd[1] init.scope
"app\x1b[2J\xc2\x9b"[830]  docker:3f2a91c0d4e5              52     /run/notify/notify.sock        -               socket 22 of sdtrace[812] web.service
syncd[900]                 user@1000.service/syncd.service  host   /run/user/1000/systemd/notify  -               NOBODY LISTENS
x[901]                     -                                -      @y                             INVALID         unknown
nginx[902]                 nginx.service                    -      ?                              -               unknown: it has written over its environment
named[903]                 -                                -      /run/a/notify                  1h30m OF PID 7  NOT ALLOWED: uid 53 may not search /run/a (0700 0:0)
named[903]                 -                                -      /run/b/notify                  -               NOT ALLOWED: it may not write to /run/b/notify (0600 1:2)
`
	if diff := cmp.Diff(want[1:], b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A value that somebody has made long moves what is behind it in its own line alone.
func TestALongValueDoesNotPadTheTable(t *testing.T) {
	long := "/" + strings.Repeat("l", 90)
	inv := &inventory.Inventory{Clients: []inventory.Client{
		{Process: inventory.Process{PID: 1, Comm: "a b"}, NotifySocket: "/run/notify", State: inventory.ClientMissing},
		{Process: inventory.Process{PID: 2, Comm: "x"}, NotifySocket: long, State: inventory.ClientMissing},
	}}
	var b strings.Builder
	if err := render.Sockets(&b, inv, 0); err != nil {
		t.Fatal(err)
	}
	want := `
PROCESS   BELONGS TO  NETNS  NOTIFY_SOCKET  WATCHDOG  LEADS TO
"a b"[1]  -           -      /run/notify    -         NO SUCH FILE
x[2]      -           -      ` + long + `  -         NO SUCH FILE
`
	if diff := cmp.Diff(want[1:], b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTree(t *testing.T) {
	inv := example()
	inv.Sockets[2].Holders = inv.Sockets[2].Holders[:1]
	var b strings.Builder
	if err := render.SocketTree(&b, inv); err != nil {
		t.Fatal(err)
	}
	want := `
-
└─ x[901]
   └─ notifies @y: unknown
docker:3f2a91c0d4e5
└─ "app\x1b[2J\xc2\x9b"[830]
   └─ notifies /run/notify/notify.sock: socket 22 of sdtrace[812] web.service
init.scope
└─ systemd[1]
   └─ holds /run/systemd/notify (socket 21)
user@1000.service/syncd.service
└─ syncd[900]
   └─ notifies /run/user/1000/systemd/notify: NOBODY LISTENS
web.service
└─ sdtrace[812]
   ├─ holds /run/web/notify/notify.sock (socket 22)
   ├─ holds /run/old/notify.sock (socket 23), the file is gone
   └─ notifies /run/systemd/notify: socket 21 of systemd[1] init.scope
(no process found)
└─ holds @a\x00b\n/notify.sock (socket 24)
`
	if diff := cmp.Diff(want[1:], b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestContainersAreCalledByName(t *testing.T) {
	a := inventory.Process{PID: 7, Comm: "a", Identity: events.Identity{Container: &events.Container{Runtime: "containerd", ID: strings.Repeat("a", 64), Name: "web"}}}
	b := inventory.Process{PID: 6, Comm: "b", Identity: events.Identity{Container: &events.Container{Runtime: "containerd", ID: strings.Repeat("b", 64), Name: "web"}}}
	inv := &inventory.Inventory{Clients: []inventory.Client{{Process: b, NotifySocket: "@n"}, {Process: a, NotifySocket: "@n"}}}
	var table, tree strings.Builder
	if err := render.Sockets(&table, inv, 40); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(table.String(), " containerd:web "); got != 2 {
		t.Errorf("the table says it %d times, want 2:\n%s", got, table.String())
	}
	if err := render.SocketTree(&tree, inv); err != nil {
		t.Fatal(err)
	}
	// In Kubernetes, containers of several pods have one name.
	want := `
containerd:web
└─ a[7]
   └─ notifies @n: unknown
containerd:web
└─ b[6]
   └─ notifies @n: unknown
`
	if diff := cmp.Diff(want[1:], tree.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJSON(t *testing.T) {
	inv := example()
	inv.Sockets, inv.Clients = inv.Sockets[1:4:4], inv.Clients[1:3]
	inv.Sockets = []inventory.Socket{inv.Sockets[0], inv.Sockets[2]}
	var b strings.Builder
	if err := inv.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	want := `
{"type":"socket","address":"/proc/self/fd/9/n","path":"/run/web/notify/notify.sock","inode":22,"netns":40,"notify":true,"file":{"state":"there","mode":"0666","uid":0,"gid":0},"next_bytes":7,"queued":3,"max_queued":0,"holders":[{"pid":812,"comm":"sdtrace","cgroup":"/system.slice/web.service","unit":"web.service","slice":"system.slice","netns":40}]}
{"type":"socket","address":"@a\\x00b\\n/notify.sock","inode":24,"netns":52,"notify":true,"next_bytes":0}
{"type":"client","notify_socket":"/run/notify/notify.sock","pid":830,"comm":"app\u001b[2J\u009b","container":{"runtime":"docker","id":"3f2a91c0d4e53f2a91c0d4e53f2a91c0d4e53f2a91c0d4e53f2a91c0d4e53f2a"},"netns":52,"state":"ok","inode":22}
{"type":"client","notify_socket":"/run/user/1000/systemd/notify","pid":900,"comm":"syncd","unit":"user@1000.service","user_unit":"syncd.service","netns":40,"state":"nobody"}
`
	if diff := cmp.Diff(want[1:], b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
