// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// environments tells the programs which addresses NOTIFY_SOCKET holds in the environment of some process: these are
// notify sockets whatever their name. Processes are looked at once when the capture begins, and each when it executes a
// program.
type environments struct {
	*Tracer
	reader *ringbuf.Reader
	// byUser holds the addresses of each user's processes, of which he keeps those that sockets are bound to, and the latest.
	byUser map[uint32]*simplelru.LRU[[addressSize]byte, struct{}]
	// users is how many users have an address.
	users map[[addressSize]byte]int
}

const (
	// addressesMost is how many addresses there are in all, as notify_sockets has room for, addressesOfUser how many one
	// user has, so that nobody can push out those of others.
	addressesMost, addressesOfUser = 4096, 256
)

// watchEnvironments begins to look. The error says why it cannot.
func (t *Tracer) watchEnvironments() error {
	reader, err := ringbuf.NewReader(t.collection.Maps["execs"])
	if err != nil {
		return fmt.Errorf("reading which programs are executed: %w", err)
	}
	e := &environments{
		Tracer: t, reader: reader,
		byUser: make(map[uint32]*simplelru.LRU[[addressSize]byte, struct{}]), users: make(map[[addressSize]byte]int),
	}
	e.lookAtAll()
	t.execs = reader
	t.scanner.Add(1)
	go func() {
		defer t.scanner.Done()
		e.follow()
	}()
	return nil
}

// follow looks at each process that executes a program, until the reader is closed.
func (e *environments) follow() {
	var record ringbuf.Record
	var lost bool
	for e.reader.ReadInto(&record) == nil {
		if len(record.RawSample) >= 4 {
			e.lookAt(int(binary.NativeEndian.Uint32(record.RawSample)))
		}
		// More at once than there is room for.
		if variable := e.collection.Variables["execs_lost"]; record.Remaining == 0 && variable.Get(&lost) == nil && lost {
			_ = variable.Set(false) // if it fails, all are looked at again
			e.lookAtAll()
		}
	}
}

func (e *environments) lookAtAll() {
	pids, err := proc.PIDs("/")
	if err != nil {
		return
	}
	for _, pid := range pids {
		e.lookAt(pid)
	}
}

// lookAt adds what NOTIFY_SOCKET holds in the environment of a process. One that cannot be read is gone, or a kernel
// thread.
func (e *environments) lookAt(pid int) {
	p, err := proc.Open(pid)
	if err != nil {
		return
	}
	defer p.Close()
	value, ok, err := p.NotifySocket()
	if err != nil || !ok {
		return
	}
	address, ok := sunPath(value)
	if !ok || isKnown(address) {
		return
	}
	if status, err := p.Status(); err == nil {
		e.add(status.FSUID, address)
	}
}

// add makes an address count that a user's process has. One of that user's goes where there are too many.
func (e *environments) add(uid uint32, address [addressSize]byte) {
	of := e.byUser[uid]
	if of == nil {
		// With room for the one for which forgetOne drops another. The size is positive.
		of, _ = simplelru.NewLRU(addressesOfUser+1, func(old [addressSize]byte, _ struct{}) { e.drop(old) })
		e.byUser[uid] = of
	}
	if of.Contains(address) {
		of.Add(address, struct{}{})
		return
	}
	if e.users[address]++; e.users[address] == 1 {
		e.makeRoom()
		if e.collection.Maps["notify_sockets"].Put(address, uint8(0)) != nil {
			e.forgotten.Add(1)
		}
		e.nameBits.add(bytes.TrimRight(address[:], "\x00"))
		_ = e.tell("notify_socket_bits", &e.nameBits) // it is the capture's end
	}
	of.Add(address, struct{}{})
	if of.Len() > addressesOfUser {
		e.forgetOne(of)
	}
}

// forgetOne drops an address: the oldest that no socket is known to be bound to, or else the oldest.
func (e *environments) forgetOne(of *simplelru.LRU[[addressSize]byte, struct{}]) {
	for _, address := range of.Keys() { // the oldest first
		var bound uint8
		if e.collection.Maps["notify_sockets"].Lookup(address, &bound) != nil || bound == 0 {
			of.Remove(address)
			return
		}
	}
	of.RemoveOldest()
}

// makeRoom drops an address of whoever has the most, if there is no more room.
func (e *environments) makeRoom() {
	if len(e.users) <= addressesMost {
		return
	}
	var most *simplelru.LRU[[addressSize]byte, struct{}]
	for _, of := range e.byUser {
		if most == nil || of.Len() > most.Len() {
			most = of
		}
	}
	e.forgetOne(most)
}

// drop takes note that a user has an address no more, which does not count any more if nobody has it.
func (e *environments) drop(address [addressSize]byte) {
	if e.users[address]--; e.users[address] > 0 {
		return
	}
	delete(e.users, address)
	_ = e.collection.Maps["notify_sockets"].Delete(address) // it is the capture's end
	e.forgotten.Add(1)
}

// nameBits mirrors notify_socket_bits.
type nameBits [4096 / 64]uint64

// notifyEnds are the ends of names that the programs know to be notify sockets' by themselves, and journalEnds the
// journal's, as in bpf/notify.h.
var (
	notifyEnds  = []string{"/systemd/notify", "/run/host/notify", "/notify.sock", "/notify/notify"}
	journalEnds = []string{"/journal/socket", "/journal/stdout", "/journal/syslog", "/journal/dev-log", "/dev/log"}
)

// isKnown reports whether the programs know an address by its end.
func isKnown(address [addressSize]byte) bool {
	name := bytes.TrimRight(address[:], "\x00")
	for _, end := range notifyEnds {
		if bytes.HasSuffix(name, []byte(end)) {
			return true
		}
	}
	return false
}

// setNameBits tells the programs of the known names.
func (t *Tracer) setNameBits() error {
	for _, ends := range [][]string{notifyEnds, journalEnds} {
		for _, end := range ends {
			t.nameBits.add([]byte(end))
		}
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

// sunPath is an address as sd_notify(3) takes it, in the form the kernel has it in sun_path, padded with NUL.
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
