// SPDX-License-Identifier: Apache-2.0

// Package verdict_test holds what pkg/verdict says against real systemds of several versions, each
// PID 1 of its own namespaces on this machine's kernel: what they log about a datagram, and what
// their properties are afterwards.
package verdict_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// suites are Debian's, in the order of their systemd's version: 247, 252, 257 and the newest.
var suites = []string{"bullseye", "bookworm", "trixie", "sid"}

// managers are the booted systemds, in the order of suites, and buses the connections to them.
var (
	managers []*pid1.Systemd
	buses    = make(map[*pid1.Systemd]*systemd1.Manager)
)

func TestMain(m *testing.M) {
	pid1.Play()
	if len(os.Args) > 1 && os.Args[1] == agentRole {
		playAgent(os.Args[2:])
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) (status int) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" || os.Geteuid() != 0 || testing.Short() {
		return m.Run()
	}
	base, err := os.MkdirTemp("", "sdt")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(base)
	// Nothing of sdtrace's runs inside.
	none := filepath.Join(base, "none")
	err = os.WriteFile(none, nil, 0o755)
	if err == nil {
		managers, err = pid1.BootAll(base, none, suites...)
	}
	defer func() {
		if err := live.end(); err != nil {
			fmt.Fprintf(os.Stderr, "the capture: %v\n", err)
			status = 1
		}
		for _, m := range managers {
			if bus := buses[m]; bus != nil {
				bus.Close()
			}
			if err := m.Stop(); err != nil {
				fmt.Fprintf(os.Stderr, "systemd of %s: %v\n", m.Name, err)
			}
		}
	}()
	for i := 0; i < len(managers) && err == nil; i++ {
		buses[managers[i]], err = systemd1.Connect(context.Background(), managers[i].PID(), "/run/systemd/notify")
	}
	if err == nil {
		err = live.begin()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func TestEveryServiceManagerIsAskedWhereverItIs(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		if got := buses[m].Version; got != m.Major {
			t.Errorf("it says it is %d", got)
		}
	})
}

// What a service was in when sdtrace came is known without a question about it.
func TestTheStatesOfServicesAreKnownFromTheBeginning(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		u := define(t, m, "early", "Type=notify", "NotifyAccess=all", "ExecStart=%A main")
		running(t, u)
		bus, err := systemd1.Connect(await.Context(t), m.PID(), "/run/systemd/notify")
		if err != nil {
			t.Fatal(err)
		}
		defer bus.Close()
		u.agent(t, "main").do(t, order{Send: []byte("STOPPING=1")})
		u.await(t, "stop-sigterm")
		if err := bus.Sync(await.Context(t)); err != nil {
			t.Fatal(err)
		}
		var subs []string
		for _, state := range bus.States("early.service") {
			subs = append(subs, state.Sub)
		}
		if !slices.Equal(subs, []string{"running", "stop-sigterm"}) {
			t.Errorf("it was in %q", subs)
		}
	})
}

// eachManager runs a test with each systemd, side by side. Without them the test binary has failed, unless
// it is not root's, or in a hurry.
func eachManager(t *testing.T, test func(t *testing.T, m *pid1.Systemd)) {
	t.Helper()
	if os.Geteuid() != 0 || testing.Short() {
		t.Skip("not declared: needs root, and a minute")
	}
	if len(managers) != len(suites) {
		t.Fatalf("%d systemds are there", len(managers))
	}
	for _, m := range managers {
		t.Run(m.Version, func(t *testing.T) {
			t.Parallel()
			test(t, m)
		})
	}
}
