// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// environmentInterval is how often new processes are looked at.
const environmentInterval = 2 * time.Second

// watchEnvironments tells the programs which addresses NOTIFY_SOCKET holds in the
// environment of some process: these are notify sockets whatever their name.
//
// Between two looks a datagram to such a socket is captured only if it reads
// like a notification, which all but those with private keys first do.
func (t *Tracer) watchEnvironments() {
	seen := map[string]int{}
	t.scanEnvironments(seen)
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
				t.scanEnvironments(seen)
			}
		}
	}()
}

// scanEnvironments looks at the processes it has not looked at twice: in between a
// process may have got another environment by execve. seen holds how often, by pid.
func (t *Tracer) scanEnvironments(seen map[string]int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	names, _ := dir.Readdirnames(-1)
	_ = dir.Close()
	alive := make(map[string]bool, len(names))
	for _, name := range names {
		if _, err := strconv.ParseUint(name, 10, 32); err != nil {
			continue
		}
		alive[name] = true
		if seen[name] >= 2 {
			continue
		}
		seen[name]++
		// Unreadable means gone, or a kernel thread.
		environ, err := os.ReadFile("/proc/" + name + "/environ")
		if err != nil {
			continue
		}
		if address, ok := notifySocketIn(environ); ok {
			// A full map leaves what fits: the protocol's keys still tell.
			_ = t.collection.Maps["notify_sockets"].Put(address, uint8(1))
		}
	}
	for name := range seen {
		if !alive[name] {
			delete(seen, name)
		}
	}
}

// notifySocketIn finds the AF_UNIX address in an environment block, in the form the
// kernel has it in sun_path, padded with NUL.
func notifySocketIn(environ []byte) (address [addressSize]byte, ok bool) {
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		value, found := bytes.CutPrefix(variable, []byte("NOTIFY_SOCKET="))
		if !found {
			continue
		}
		if len(value) < 2 || len(value) > 108 || (value[0] != '/' && value[0] != '@') {
			return address, false
		}
		copy(address[:], value)
		if address[0] == '@' {
			address[0] = 0
		}
		return address, true
	}
	return address, false
}
