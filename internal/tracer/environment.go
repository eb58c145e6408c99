// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"encoding/binary"
	"os"
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// environmentInterval is how often new processes are looked at.
const environmentInterval = 2 * time.Second

// watchEnvironments tells the programs which addresses NOTIFY_SOCKET holds in the
// environment of some process: these are notify sockets whatever their name.
//
// Between two looks a datagram to such a socket is captured only if it reads
// like a notification, which all but those with private keys first do.
func (t *Tracer) watchEnvironments() {
	seen := map[int]int{}
	t.scanEnvironments(seen)
	due := scanDue{newest: newestProcess()}
	t.scanner.Add(1)
	go func() {
		defer t.scanner.Done()
		tick := time.NewTicker(environmentInterval)
		defer tick.Stop()
		for {
			select {
			case <-t.stop:
				return
			case <-tick.C:
				if due.now(newestProcess()) {
					t.scanEnvironments(seen)
				}
			}
		}
	}()
}

// scanLooks is how often a process is looked at: in between it may have got another
// environment by execve.
const scanLooks = 2

// scanDue knows when there may be processes that were not looked at often enough. To list the
// processes of a large host costs more than all the rest of an idle capture.
type scanDue struct {
	newest string // process of the host, as of the last question
	looks  int    // since it is that
}

// now says whether to look, given what [newestProcess] says.
func (d *scanDue) now(newest string) bool {
	if newest == "" || newest != d.newest {
		d.newest, d.looks = newest, 0
	}
	d.looks++
	return d.looks <= scanLooks
}

// newestProcess is the number that was given to a process or thread last, "" if that cannot
// be read (proc_loadavg(5)).
func newestProcess() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return string(bytes.TrimSpace(text[bytes.LastIndexByte(text, ' ')+1:]))
}

// scanEnvironments looks at the processes it has not looked at scanLooks times. seen holds
// how often, by pid.
func (t *Tracer) scanEnvironments(seen map[int]int) {
	pids, err := proc.PIDs("/")
	if err != nil {
		return
	}
	alive := make(map[int]bool, len(pids))
	for _, pid := range pids {
		alive[pid] = true
		if seen[pid] >= scanLooks {
			continue
		}
		seen[pid]++
		if address, ok := notifySocketOf(pid); ok {
			t.addNotifySocket(address)
		}
	}
	for pid := range seen {
		if !alive[pid] {
			delete(seen, pid)
		}
	}
}

// nameBits mirrors notify_socket_bits.
type nameBits [4096 / 64]uint64

// knownEnds are the ends of names that the programs know by themselves, as in bpf/notify.h: notify sockets, and the
// journal's.
var knownEnds = []string{
	"/systemd/notify", "/run/host/notify", "/notify.sock", "/notify/notify",
	"/journal/socket", "/journal/stdout", "/journal/syslog", "/journal/dev-log", "/dev/log",
}

// setNameBits tells the programs of the known names.
func (t *Tracer) setNameBits() error {
	for _, end := range knownEnds {
		t.nameBits.add([]byte(end))
	}
	return t.tell("notify_socket_bits", &t.nameBits)
}

// add sets the bit of a name, as name_bit in bpf/notify.h looks for it: by its last seven bytes. For a shorter one the
// programs ask the map.
func (b *nameBits) add(name []byte) {
	if len(name) < 8 {
		return
	}
	const factor = 0x9e3779b97f4a7c15
	bit := (binary.LittleEndian.Uint64(name[len(name)-8:]) >> 8) * factor >> (64 - 12)
	b[bit/64] |= 1 << (bit % 64)
}

// addNotifySocket makes an address count. What does not fit is left out: the protocol's keys
// still tell.
func (t *Tracer) addNotifySocket(address [addressSize]byte) {
	if t.collection.Maps["notify_sockets"].Put(address, uint8(1)) != nil {
		return
	}
	t.nameBits.add(bytes.TrimRight(address[:], "\x00"))
	_ = t.tell("notify_socket_bits", &t.nameBits)
}

// notifySocketOf is the AF_UNIX address that NOTIFY_SOCKET holds in the environment of a
// process, in the form the kernel has it in sun_path, padded with NUL. A process that cannot be
// read is gone, or a kernel thread.
func notifySocketOf(pid int) (address [addressSize]byte, ok bool) {
	p, err := proc.Open(pid)
	if err != nil {
		return address, false
	}
	defer p.Close()
	value, ok, err := p.NotifySocket()
	if err != nil || !ok {
		return address, false
	}
	return sunPath(value)
}

// sunPath is an address as sd_notify(3) takes it, in the form the kernel has it, padded with NUL.
func sunPath(value string) (address [addressSize]byte, ok bool) {
	if len(value) < 2 || len(value) > 108 || (value[0] != '/' && value[0] != '@') {
		return address, false
	}
	copy(address[:], value)
	if address[0] == '@' {
		address[0] = 0
	}
	return address, true
}
