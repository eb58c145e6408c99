// SPDX-License-Identifier: Apache-2.0

package systemd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/await"
)

// unit is a service with a container behind a relay.
type unit struct {
	// service are lines of its section [Service].
	service []string
	// relay are flags of sdtrace relay.
	relay []string
	// policy are lines of a policy file.
	policy []string
	// clock is what the container's clocks are ahead, in seconds.
	clock int
	// silent makes it end at once with exitStatus, without a word.
	silent     bool
	exitStatus int
}

// service is a unit that a manager knows.
type service struct {
	m    *manager
	name string
	// containers are those that came up, one for each start.
	containers chan *container
	// ended is what systemd says of each end.
	ended chan ending
}

// ending is what systemd tells ExecStopPost=.
type ending struct{ Result, Code, Status string }

// hello is the first thing that a process of a unit says to its test.
type hello struct {
	Ending *ending
	Facts  facts
}

var units atomic.Int64

// define writes a unit file.
func (m *manager) define(t *testing.T, u unit) *service {
	t.Helper()
	s := &service{
		m: m, name: fmt.Sprintf("web%d", units.Add(1)),
		containers: make(chan *container, 16), ended: make(chan ending, 16),
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: m.path(s.name + ".sock")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.path(s.name+".sock"), 0o777); err != nil {
		t.Fatal(err)
	}
	go s.accept(l)
	t.Cleanup(func() {
		if t.Failed() {
			logged, _ := os.ReadFile(m.path(s.name + ".log"))
			t.Logf("what the unit logged:\n%s\nwhat systemd says about it:\n%s", indent(string(logged)), indent(m.Console.About(s.name)))
		}
		// That of the test has ended.
		_, _ = m.Systemctl(context.Background(), "kill", "--signal=KILL", s.name+".service")
		l.Close()
	})

	directory := "/run/" + s.name
	argv := append([]string{"/sdtrace", "relay", "--log", "--directory", directory, "--inside", insideDirectory}, u.relay...)
	if u.policy != nil {
		if err := os.WriteFile(m.path(s.name+".policy"), []byte(strings.Join(u.policy, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		argv = append(argv, "--policy-file", "/shared/"+s.name+".policy")
	}
	argv = append(argv, "--", "/roles", "container", s.name, directory, fmt.Sprint(u.clock))
	if u.silent {
		argv = append(argv, fmt.Sprint(u.exitStatus))
	}
	file := "[Unit]\nDefaultDependencies=no\n[Service]\n" +
		"RuntimeDirectory=" + s.name + "\n" +
		"StandardOutput=append:/shared/" + s.name + ".log\n" +
		"StandardError=inherit\n" +
		"ExecStart=" + strings.Join(argv, " ") + "\n" +
		"ExecStopPost=/roles report " + s.name + "\n" +
		strings.Join(u.service, "\n") + "\n"
	if err := os.WriteFile(m.Inside("/run/systemd/system/"+s.name+".service"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// path is where a file of /shared is on this side.
func (m *manager) path(name string) string { return filepath.Join(m.Shared, name) }

// another boots one more of the same version for a test that disturbs it.
func (m *manager) another(t *testing.T) *manager {
	t.Helper()
	own, err := m.Another()
	if own != nil {
		t.Cleanup(func() {
			if err := own.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	if err == nil {
		err = own.AwaitReady()
	}
	if err != nil {
		t.Fatalf("booting systemd %s: %v", m.Version, err)
	}
	return &manager{own}
}

func (s *service) accept(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			c := &container{conn: conn, dec: json.NewDecoder(conn), pending: map[int]chan response{}}
			var h hello
			if err := c.dec.Decode(&h); err != nil {
				return
			}
			if h.Ending != nil {
				s.ended <- *h.Ending
				return
			}
			c.facts = h.Facts
			c.pids, c.err = pidsOfPeer(conn)
			s.containers <- c
			c.read()
		}()
	}
}

// playReport tells the test how its unit ended.
func playReport(args []string) error {
	conn, err := net.Dial("unix", "/shared/"+args[0]+".sock")
	if err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(hello{Ending: &ending{
		Result: os.Getenv("SERVICE_RESULT"), Code: os.Getenv("EXIT_CODE"), Status: os.Getenv("EXIT_STATUS"),
	}})
}

// do runs systemctl VERB for the unit in the background.
func (s *service) do(t *testing.T, verb string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := s.m.Systemctl(t.Context(), verb, s.name+".service")
		done <- err
	}()
	return done
}

// start starts the unit, and returns its container and what systemctl start
// returns, in the end.
func (s *service) start(t *testing.T) (*container, <-chan error) {
	t.Helper()
	starting := s.do(t, "start")
	return s.container(t), starting
}

// container is the next that comes up.
func (s *service) container(t *testing.T) *container {
	t.Helper()
	c := await.Receive(t, "a container", s.containers)
	if c.err != nil {
		t.Fatal(c.err)
	}
	return c
}

// started is start and the container's readiness.
func (s *service) started(t *testing.T) *container {
	t.Helper()
	c, starting := s.start(t)
	c.notify(t, "READY=1")
	succeed(t, "systemctl start", starting)
	return c
}

func succeed(t *testing.T, what string, done <-chan error) {
	t.Helper()
	if err := await.Receive(t, what, done); err != nil {
		t.Fatal(err)
	}
}

// properties are some of a unit's.
type properties map[string]string

// expect holds properties of the unit against what they should be. A container's
// barrier comes before it.
func (s *service) expect(t *testing.T, want properties) {
	t.Helper()
	if diff := cmp.Diff(want, s.show(t, want)); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", s.name, diff)
	}
}

// show asks systemd for the properties that like has.
func (s *service) show(t *testing.T, like properties) properties {
	t.Helper()
	got, err := s.m.Show(t.Context(), s.name+".service", slices.Collect(maps.Keys(like))...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// signal sends a signal to the relay.
func (s *service) signal(t *testing.T, name string) {
	t.Helper()
	if _, err := s.m.Systemctl(t.Context(), "kill", "--kill-whom=main", "--signal="+name, s.name+".service"); err != nil {
		t.Fatal(err)
	}
}

// log is what the relay and its container wrote.
func (s *service) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(s.m.path(s.name + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
