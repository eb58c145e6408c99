// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// web is the service of the scenarios: it says what the test tells it to say, when it
// tells it to, so that the order of what it says and what others make of that is the same
// in every run. It reaches the test by a socket in /shared, also out of a container.
const (
	webSocket = "web.sock"
	inShared  = "/shared/"
)

// order is what web is to do.
type order struct {
	Say  string   // a datagram
	With []string // the descriptors that go with it: "pipe", "memfd"
	Exit *int     // the status to end with
}

// notice is what web tells about itself.
type notice struct {
	Socket *string // its NOTIFY_SOCKET, when it starts; "" if it has none
	Text   string  // what happened to it
}

// playWeb is web or, as "web healthy", a health check of it.
func playWeb() error {
	if len(os.Args) == 2 && os.Args[1] == "healthy" {
		_, err := os.Stat(inShared + "healthy")
		return err
	}
	conn, err := net.Dial("unix", inShared+webSocket)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	tell := func(n notice) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(conn).Encode(n)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGABRT)
	go func() {
		for s := range signals {
			tell(notice{Text: "gets " + unix.SignalName(s.(unix.Signal))})
		}
	}()
	address := os.Getenv("NOTIFY_SOCKET")
	tell(notice{Socket: &address})
	for orders := json.NewDecoder(conn); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			return fmt.Errorf("waiting for an order: %w", err)
		}
		if o.Exit != nil {
			os.Exit(*o.Exit)
		}
		// That it failed is seen by the capture.
		_ = say(address, o, tell)
	}
}

// say sends a datagram by a connected socket, as go-systemd does, or where it cannot connect
// by one that is not, as libsystemd does.
func say(address string, o order, tell func(notice)) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	var to unix.Sockaddr
	if err := unix.Connect(socket, &unix.SockaddrUnix{Name: address}); err != nil {
		to = &unix.SockaddrUnix{Name: address}
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, kind := range o.With {
		switch kind {
		case "pipe":
			var ends [2]int
			if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
				return err
			}
			fds = append(fds, ends[1])
			defer func() {
				// Its other end is closed here, and by all who got it, before it hangs up.
				go func() {
					hangup := []unix.PollFd{{Fd: int32(ends[0])}}
					for {
						if _, err := unix.Poll(hangup, -1); err != unix.EINTR {
							break
						}
					}
					unix.Close(ends[0])
					tell(notice{Text: "sees its barrier end"})
				}()
			}()
		case "memfd":
			fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
		default:
			return fmt.Errorf("no such kind of descriptor: %s", kind)
		}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	text := strings.NewReplacer("<web>", strconv.Itoa(os.Getpid()), "<clock>", strconv.FormatInt(now.Nano()/1000, 10)).Replace(o.Say)
	if text, err = withNumbers(text); err != nil {
		return err
	}
	text = times.ReplaceAllStringFunc(text, func(padding string) string {
		n, _ := strconv.Atoi(times.FindStringSubmatch(padding)[1])
		return strings.Repeat("x", n)
	})
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(socket, []byte(text), rights, to, unix.MSG_NOSIGNAL)
}

// times stands for padding.
var times = regexp.MustCompile(`<(\d+) times x>`)

var named = regexp.MustCompile(`MAINPID=<([^>]+)>`)

// withNumbers replaces the names of main processes by their numbers: of several processes
// of the same name, by the lowest.
func withNumbers(text string) (string, error) {
	var failure error
	text = named.ReplaceAllStringFunc(text, func(assignment string) string {
		name := named.FindStringSubmatch(assignment)[1]
		lowest := 0
		comms, _ := filepath.Glob("/proc/[0-9]*/comm")
		for _, file := range comms {
			comm, err := os.ReadFile(file)
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil && strings.TrimSpace(string(comm)) == name && (lowest == 0 || pid < lowest) {
				lowest = pid
			}
		}
		if lowest == 0 {
			failure = fmt.Errorf("no process %q", name)
		}
		return "MAINPID=" + strconv.Itoa(lowest)
	})
	return text, failure
}
