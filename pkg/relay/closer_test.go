// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

// stuckFile is a file of an agent of which closing waits for as long as a server lives (fuse(4)).
var stuckFile int

// serveStuckFile makes it in place of a file.
func serveStuckFile(at string) error {
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	go serveFile(fuse)
	return unix.Mount("stuck", at, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=100000,user_id=0,group_id=0,allow_other", fuse))
}

// serveFile answers what it takes to open a file, and nothing else.
func serveFile(fuse int) {
	const (
		attributes = 3 // FUSE_GETATTR
		open       = 14
		initialize = 26
	)
	request := make([]byte, 1<<17)
	for {
		n, err := unix.Read(fuse, request)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EPERM) { // it is not mounted yet
			continue
		}
		if err != nil || n < 40 {
			return
		}
		var body []byte
		switch binary.NativeEndian.Uint32(request[4:]) {
		case initialize:
			body = make([]byte, 64)
			binary.NativeEndian.PutUint32(body, 7)
			binary.NativeEndian.PutUint32(body[4:], 31)
			binary.NativeEndian.PutUint32(body[20:], 4096)
		case attributes:
			body = make([]byte, 16+88)
			binary.NativeEndian.PutUint64(body[16:], 1)
			binary.NativeEndian.PutUint32(body[16+60:], unix.S_IFREG|0o644)
			binary.NativeEndian.PutUint32(body[16+64:], 1)
		case open:
			body = make([]byte, 16)
		default:
			continue
		}
		answer := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
		answer = append(append(append(answer, 0, 0, 0, 0), request[8:16]...), body...)
		if _, err := unix.Write(fuse, answer); err != nil {
			return
		}
	}
}

// startWithStuckFile starts an agent that has such a file, and its server. Whoever waits for the file cannot be killed until the
// server ends, which it does with the test at the latest, also if that is killed.
func startWithStuckFile(t *testing.T) (enemy, server *agent) {
	t.Helper()
	at := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(at, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := command("unshare", "--mount", os.Args[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan *agent)
	go func() {
		// The signal comes at the end of this thread, which is to be the test's.
		runtime.LockOSThread()
		started <- runAsAgent(t, cmd)
		select {}
	}()
	server = <-started
	switch o := server.do(order{Do: "serve a stuck file", Args: []string{at}}); {
	case o.Errno != 0 && !vmtest.Native():
		t.Skipf("not declared: this machine has no FUSE: %v", o.Errno)
	case o.Errno != 0:
		t.Fatal(o.Errno)
	}
	enemy = runAsAgent(t, command("nsenter", "--mount", "--target", strconv.Itoa(server.pid), os.Args[0]))
	t.Cleanup(server.stop) // before the enemy, who waits for it
	if o := enemy.do(order{Do: "open a stuck file", Args: []string{at}}); o.Errno != 0 {
		t.Fatal(o.Errno)
	}
	return enemy, server
}

// What one user passes holds up neither the relay nor the closing of what others pass.
func TestFilesThatCannotBeClosedHoldUpNobodyElse(t *testing.T) {
	// A process that is started later has such files, too, and waits when it closes them.
	a := startAgent(t)
	enemy, _ := startWithStuckFile(t)
	r := newRig(t)
	for range 8 {
		enemy.do(order{Do: "pass the stuck file", Socket: r.socket, Payload: []byte("X=1")})
	}
	a.do(order{Do: "setuid", PID: 65534})
	if o := a.do(order{Do: "barrier", Socket: r.socket, Payload: []byte("X=1"), FDs: []string{"socket"}}); o.Errno != 0 || !o.Released {
		t.Errorf("what another user has passed is not closed: %+v", o)
	}
	a.send(r.socket, "STATUS=heard")
	r.host.expect("STATUS=heard")
}

// When too many file descriptors wait to be closed, no more are taken, and what is said is heard.
func TestARelayThatCannotCloseTakesNoMoreFileDescriptors(t *testing.T) {
	a := startAgent(t)
	enemy, server := startWithStuckFile(t)
	r := newWaitingRig(t)
	r.relay.HoldAtMost(500)
	r.run()
	has := func(reason relay.Reason) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.decisions, func(d relay.Decision) bool { return d.Reason == reason })
	}
	await.Until(t, "file descriptors are not taken", func() bool {
		o := enemy.do(order{Do: "pass the stuck file", Socket: r.socket, Payload: []byte("READY=0")})
		return errors.Is(o.Errno, unix.EPERM) || has(relay.ReasonFDsNotTaken) // the former since Linux 6.16
	})
	a.send(r.socket, "STATUS=heard")
	r.host.expect("STATUS=heard")
	server.stop()
	r.mu.Lock()
	r.decisions = nil
	r.mu.Unlock()
	await.Until(t, "file descriptors are taken again", func() bool {
		if a.do(order{Do: "send", Socket: r.socket, Payload: []byte("STATUS=again"), FDs: []string{"memfd"}}).Errno != 0 {
			return false
		}
		r.host.expect("STATUS=again")
		return has(relay.ReasonUnusedFDs)
	})
}

// Who wants neither barriers nor the store takes no file descriptors at all.
func TestARelayThatWantsNoFileDescriptorsHearsTheRest(t *testing.T) {
	r := newRig(t, func(c *relay.Config) { c.NoFDs = true })
	a := startAgent(t)
	switch o := a.do(order{Do: "send", Socket: r.socket, Payload: []byte("BARRIER=1"), FDs: []string{"pipe"}}); o.Errno {
	case 0: // before Linux 6.16
		r.awaitDecision(relay.KeyNone, relay.Denied, relay.ReasonFDsNotTaken)
		r.awaitDecision(relay.KeyBarrier, relay.Denied, relay.ReasonFDCount)
	case unix.EPERM:
	default:
		t.Fatal(o.Errno)
	}
	a.send(r.socket, "READY=1")
	r.host.expect("READY=1")
}
