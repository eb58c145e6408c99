// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
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
	Failed bool    // when it tried to notify
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
		if err := say(address, o, tell); err != nil {
			tell(notice{Text: "cannot notify: " + err.Error(), Failed: true})
		}
	}
}

// times stands for padding.
var times = regexp.MustCompile(`<(\d+) times x>`)

// say sends a datagram by a connected socket, as go-systemd does. Where it cannot connect,
// it sends to the address, as libsystemd does: of a failed connect nobody captures anything.
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
	text = times.ReplaceAllStringFunc(text, func(padding string) string {
		n, _ := strconv.Atoi(times.FindStringSubmatch(padding)[1])
		return strings.Repeat("x", n)
	})
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_ = unix.Sendmsg(socket, []byte(text), rights, to, unix.MSG_NOSIGNAL) // what becomes of it is captured
	return nil
}
