// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a container behind the relay does is written in the arguments of the
// role "relayed", one step each: one of these, "exit=" and a status, or the text
// of a datagram, in which $PID and $CLOCK stand for the container's own process
// id and its CLOCK_MONOTONIC in microseconds.
const (
	stepBarrier = "barrier" // sends a barrier and waits until it is released
	stepSigterm = "sigterm" // says so on stdout and waits for SIGTERM
)

// sigtermAwaited is the line on stdout of a container that waits for SIGTERM.
const sigtermAwaited = "waiting for SIGTERM"

// barrierLimit is how long a container waits at a barrier.
const barrierLimit = time.Minute

// relayed is what a container tells about itself in the last line of its stdout.
type relayed struct {
	PID, UID   int
	PIDFDInode uint64 // of a pidfd of its own; 0: the number means nothing here
	// Environment holds what is for notifying.
	Environment []string
	// Clocks are the values that $CLOCK had.
	Clocks []uint64
	// Writable says whether a file could be made beside the socket.
	Writable bool
}

func playRelayed() error {
	report := relayed{PID: os.Getpid(), UID: os.Getuid(), PIDFDInode: pidfdInode()}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if value, set := os.LookupEnv(name); set {
			report.Environment = append(report.Environment, name+"="+value)
		}
	}
	socket := os.Getenv("NOTIFY_SOCKET")
	if file, err := os.Create(socket + ".probe"); err == nil {
		report.Writable = true
		file.Close()
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, unix.SIGTERM)
	status := 0
	for _, step := range os.Args[1:] {
		var err error
		number, isExit := strings.CutPrefix(step, "exit=")
		switch {
		case step == stepSigterm:
			fmt.Println(sigtermAwaited)
			<-terminate
		case step == stepBarrier:
			err = sendBarrier(socket)
		case isExit:
			status, err = strconv.Atoi(number)
		default:
			if strings.Contains(step, "$CLOCK") {
				var now unix.Timespec
				err = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
				report.Clocks = append(report.Clocks, uint64(now.Nano()/1000))
				step = strings.ReplaceAll(step, "$CLOCK", strconv.FormatInt(now.Nano()/1000, 10))
			}
			step = strings.ReplaceAll(step, "$PID", strconv.Itoa(os.Getpid()))
			err = errors.Join(err, sendNotification(socket, step))
		}
		if err != nil {
			return fmt.Errorf("step %q: %w", step, err)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		return err
	}
	os.Exit(status)
	return nil
}

// sendNotification sends as sd_notify(3) does, from a new unconnected socket.
func sendNotification(socket, payload string, fds ...int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var control []byte
	if len(fds) > 0 {
		control = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(fd, []byte(payload), control, &unix.SockaddrUnix{Name: socket}, unix.MSG_NOSIGNAL)
}

// sendBarrier does what sd_notify_barrier(3) does.
func sendBarrier(socket string) error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(ends[0])
	err := sendNotification(socket, "BARRIER=1", ends[1])
	unix.Close(ends[1])
	if err != nil {
		return err
	}
	released := []unix.PollFd{{Fd: int32(ends[0])}}
	for {
		n, err := unix.Poll(released, int(barrierLimit.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("not released")
		}
		return err
	}
}

// pidfdInode is the inode number of a pidfd of this process, by which systemd
// tells processes apart; 0 on a kernel without pidfs, where all have the same.
func pidfdInode() uint64 {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var stat unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PID_FS_MAGIC || unix.Fstat(fd, &stat) != nil {
		return 0
	}
	return stat.Ino
}
