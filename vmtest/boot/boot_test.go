// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/document"
)

const (
	guide    = "../../docs/field-guide.md"
	tutorial = "../../docs/tutorial.md"
)

// asUser runs a command as the user whose service manager is up since boot.
const asUser = "runuser -u web -- env XDG_RUNTIME_DIR=/run/user/1000 "

// daemons are services that say READY=1 when they are up.
var daemons = []string{
	"systemd-journald.service", "systemd-logind.service", "dbus.service", "user@1000.service",
	"containerd.service", "docker.service",
}

// The steps that are walked before those of the tutorial.
const (
	systemUp = iota
	userUp
	systemUnits
	userUnits
	daemonsWhy
	confinedLoad
	confinedWhy
	usersWhy
	sessionWhy
	relayWhy
	factSteps
)

var facts = [factSteps]step{
	systemUp:    {Line: "systemctl is-system-running --wait"},
	userUp:      {Line: asUser + "systemctl --user is-system-running --wait"},
	systemUnits: {Line: showUnits},
	userUnits:   {Line: asUser + strings.Replace(showUnits, "systemctl", "systemctl --user", 1)},
	daemonsWhy:  {Line: "sdtrace why -o json " + strings.Join(daemons, " ")},
	// Its status is that of systemctl, and that of the answer is in the answer.
	confinedLoad: {Line: "cat " + profileFile + " >/sys/kernel/security/apparmor/.load && systemctl start --no-block confined"},
	confinedWhy:  {Line: untilCause("sdtrace why -o json confined", "not-delivered") + "; systemctl stop confined"},
	usersWhy: {Line: asUser + "systemctl --user start --no-block stuck && " + untilCause("SUDO_UID=1000 sdtrace why -o json --user stuck", "not-in-environment") +
		"; " + asUser + "systemctl --user stop stuck"},
	sessionWhy: {Line: "systemctl start --no-block session && " + untilCause("sdtrace why -o json session", "ignored") + "; systemctl stop session"},
	relayWhy:   {Line: "systemctl start --no-block withheld && " + untilCause("sdtrace why -o json withheld", "relay-withholds") + "; systemctl stop withheld"},
}

// untilCause is a command line that asks again and again until a cause is found, and shows that answer.
func untilCause(ask, name string) string {
	return `until answer=$(` + ask + `); [[ $answer == *'"cause":{"name":"` + name + `"'* ]]; do :; done; printf '%s\n' "$answer"`
}

// TestBoot boots one machine for all that is held against it: it takes two minutes.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("not declared: boots a machine, two minutes")
	}
	vmtest.Natively(t, "it boots a machine itself")
	session, err := os.ReadFile("testdata/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	walk, err := parseSession(string(session))
	if err != nil {
		t.Fatalf("testdata/tutorial.md: %v", err)
	}
	r := runMachine(t, append(facts[:], walk.steps...))
	for _, w := range r.walked[:factSteps] {
		if w.Status != 0 {
			t.Fatalf("%s: status %d\n%s", w.Line, w.Status, w.Output)
		}
	}
	m := &machine{
		capture: parseCapture(t, r.capture),
		system:  parseUnits(t, r.walked[systemUnits].Output),
		user:    parseUnits(t, r.walked[userUnits].Output),
		kernel:  r.walked[systemUp].Clock.Add(-r.walked[systemUp].Began),
	}
	m.boot = m.capture.before(r.walked[daemonsWhy].Clock)
	m.rest = m.capture.sends[len(m.boot):]

	t.Run("every service is ready by its own word", m.checkReady)
	t.Run("systemd has read everything", m.checkRead)
	t.Run("nothing is wrong with the daemons", func(t *testing.T) { checkHealthy(t, r.walked[daemonsWhy].Output) })
	t.Run("a security module is named", func(t *testing.T) {
		checkCause(t, r.walked[confinedWhy].Output, "not-delivered", "certain", "systemd-notify", "EACCES", "it is confined as sdt-confined")
	})
	t.Run("a unit of a user's manager is explained", func(t *testing.T) {
		checkCause(t, r.walked[usersWhy].Output, "not-in-environment", "certain", "sleep", "without NOTIFY_SOCKET", "/usr/bin/env")
	})
	t.Run("a session of PAM's is named", func(t *testing.T) {
		checkCause(t, r.walked[sessionWhy].Output, "ignored", "certain", "READY=1 of systemd-notify", "the sender belongs to session-", "which is no service")
	})
	t.Run("a relay that keeps READY=1 to itself is named", func(t *testing.T) {
		checkCause(t, r.walked[relayWhy].Output, "relay-withholds", "likely", "sdtrace[", "has read READY=1 of systemd-notify[", "has not passed it on")
	})
	t.Run("in the order that units ask for", m.checkOrder)
	t.Run("a user's service tells the user's manager", m.checkUser)
	t.Run("runc passes on that it is ready", m.checkRunc)
	t.Run("the end", m.checkEnd)
	t.Run("guide", func(t *testing.T) { document.Check(t, guide, "boot", m.describe(t)) })
	t.Run("tutorial", func(t *testing.T) {
		walked := r.walked[factSteps:]
		checkStatuses(t, walked)
		// A container's name that is not known after a quarter of a second is not waited for
		// (docs/events.md): on a busy machine its id stands there.
		named := containerID.ReplaceAllString(walk.render(walked), fmt.Sprintf("docker:%-12s", "web"))
		document.Check(t, tutorial, "", scopeID.ReplaceAllString(named, "docker-ID.scope"))
	})
}

// containerID is the one container of the tutorial, without its name.
var containerID = regexp.MustCompile(`\bdocker:[0-9a-f]{12}\b`)

// scopeID is the unit that a container of docker's is in.
var scopeID = regexp.MustCompile(`\bdocker-[0-9a-f]{12}\.scope\b`)

// machine is one that has been up and down again.
type machine struct {
	capture *captured
	// boot are the datagrams until all was up, rest those after.
	boot, rest   []*events.Event
	system, user units
	kernel       time.Time // when its kernel began
}

// ready is the first READY=1 of each service that systemd waits for.
func (m *machine) ready(t *testing.T) map[string]*events.Event {
	t.Helper()
	ready := map[string]*events.Event{}
	for _, unit := range m.system.notifying() {
		pid := m.system.mainPID(t, unit)
		for _, r := range m.boot {
			if ready[unit] == nil && r.Sender.PID == pid && r.Socket.Address == systemSocket && delivered(r) && says(r, "READY", "1") {
				ready[unit] = r
			}
		}
	}
	return ready
}

func (m *machine) checkReady(t *testing.T) {
	names := m.system.notifying()
	for _, name := range daemons {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not up in this machine", name)
		}
	}
	ready := m.ready(t)
	if diff := cmp.Diff(names, sortedKeys(ready)); diff != "" {
		t.Errorf("services that systemd calls active, and that said READY=1 (-systemctl +capture):\n%s", diff)
	}
	for name, r := range ready {
		if r.Sender.Unit != name {
			t.Errorf("READY=1 of %s is from the unit %q", name, r.Sender.Unit)
		}
	}
	for _, r := range m.boot {
		if r.Socket.Address == systemSocket && says(r, "READY", "1") && !slices.Contains(names, r.Sender.Unit) {
			t.Errorf("nobody waits for this: %s: %s", r.Sender.Unit, text(r))
		}
	}
}

// checkHealthy holds what sdtrace why says of real daemons that are up.
func checkHealthy(t *testing.T, output string) {
	asked := 0
	for line := range strings.Lines(output) {
		var answer struct {
			Unit, Health string
			Cause        any
		}
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		asked++
		if answer.Health != "healthy" || answer.Cause != nil {
			t.Errorf("%s is %s: %v", answer.Unit, answer.Health, answer.Cause)
		}
	}
	if asked != len(daemons) {
		t.Errorf("it has answered for %d of %d", asked, len(daemons))
	}
}

// checkCause holds what sdtrace why says of a unit that hangs.
func checkCause(t *testing.T, output, name, certainty string, words ...string) {
	var answer struct {
		Cause struct{ Name, Certainty, Because, Change string }
	}
	if err := json.Unmarshal([]byte(output), &answer); err != nil {
		t.Fatalf("%v: %q", err, output)
	}
	if c := answer.Cause; c.Name != name || c.Certainty != certainty {
		t.Errorf("the cause is %+v", c)
	}
	for _, word := range words {
		if !strings.Contains(answer.Cause.Because, word) {
			t.Errorf("it does not say %q: %s", word, answer.Cause.Because)
		}
	}
}

// All that is sent to process 1 arrives, and is read by it.
func (m *machine) checkRead(t *testing.T) {
	for _, r := range m.boot {
		if r.Socket.Address != systemSocket {
			continue
		}
		read := m.capture.reads[r.Seq]
		if !delivered(r) || !receivedBy(r, 1) || read == nil || read.By.PID != 1 || read.Errno != "" || read.Truncated {
			t.Errorf("%s: %s, read: %+v", group(r), text(r), read)
		}
	}
}

// A unit is started once those before it are ready, so it is ready later.
func (m *machine) checkOrder(t *testing.T) {
	ready := m.ready(t)
	names := sortedKeys(ready)
	pairs := 0
	for _, name := range names {
		for _, before := range m.system.after(name, names) {
			pairs++
			if read := m.capture.reads[ready[before].Seq]; read == nil || !read.Time.Before(ready[name].Time) {
				t.Errorf("%s is started after %s, but said READY=1 at %s, before the other's was read: %+v", name, before, ready[name].Time, read)
			}
		}
	}
	if before := m.system.after("docker.service", names); !slices.Contains(before, "containerd.service") {
		t.Errorf("docker is started after %q, not after containerd", before)
	}
	t.Logf("%d pairs of units", pairs)
}

func (m *machine) checkUser(t *testing.T) {
	names := m.user.notifying()
	if diff := cmp.Diff([]string{"greeter.service"}, names); diff != "" {
		t.Fatalf("the user's services (-want +systemctl):\n%s", diff)
	}
	manager := m.system.mainPID(t, "user@1000.service")
	i := slices.IndexFunc(m.boot, func(r *events.Event) bool {
		return r.Sender.UserUnit == names[0] && says(r, "READY", "1") && delivered(r)
	})
	if i < 0 {
		t.Fatalf("%s did not say READY=1", names[0])
	}
	r := m.boot[i]
	if r.Sender.Unit != "user@1000.service" || !receivedBy(r, manager) {
		t.Errorf("it is from %s, want one for [%d]: %s", group(r), manager, text(r))
	}
	if read := m.capture.reads[r.Seq]; read == nil || read.By.PID != manager {
		t.Errorf("it was not read by the user's manager: %+v", read)
	}
}

// runc withholds all that is not READY=1. What the container says last it may leave unread: the container ends right
// after, and runc with it.
func (m *machine) checkRunc(t *testing.T) {
	kept := map[uint64]string{}
	for _, r := range m.capture.withheld {
		if r.Relay.Comm == "runc" && r.Relay.Unit == "web-runc.service" {
			kept[r.Seq] = assignments(r.Message)
		}
	}
	var got []string
	for _, e := range m.capture.sends {
		if !strings.HasPrefix(string(e.Socket.Address), "/run/runc/") {
			continue
		}
		if by := m.capture.unread[e.Seq]; by != nil && by.By.Comm == "runc" && says(e, "STOPPING", "1") {
			kept[e.Seq] = assignments(messageOf(e))
		}
		got = append(got, kept[e.Seq])
		t.Logf("%s: read: %+v, unread: %+v", text(e), m.capture.reads[e.Seq], m.capture.unread[e.Seq])
	}
	if diff := cmp.Diff([]string{` STATUS="Serving requests"`, ` STOPPING=1 STATUS=Goodbye`}, got); diff != "" {
		t.Errorf("runc withheld (-want +got):\n%s", diff)
	}
}

// At the end units stop in the opposite order.
func (m *machine) checkEnd(t *testing.T) {
	var stopping []string
	for _, r := range m.rest {
		if r.Socket.Address == systemSocket && says(r, "STOPPING", "1") {
			stopping = append(stopping, r.Sender.Unit)
		}
	}
	slices.Reverse(stopping) // docker was restarted in between
	docker, containerd, dbus := slices.Index(stopping, "docker.service"), slices.Index(stopping, "containerd.service"), slices.Index(stopping, "dbus.service")
	if docker < 0 || containerd < 0 || dbus < 0 || docker < containerd || containerd < dbus {
		t.Errorf("the last STOPPING=1 are, from the end: %q, want dbus before containerd before docker", stopping)
	}
}

// describe is the section about the boot.
func (m *machine) describe(t *testing.T) string {
	t.Helper()
	section, err := template.ParseFiles("testdata/boot.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = section.Execute(&b, map[string]string{
		"Table": m.system.table(), "Diagram": m.system.diagram(), "Timeline": timeline(m.boot, m.kernel),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// checkStatuses holds that the commands of a walk do what they are there for.
func checkStatuses(t *testing.T, all []walked) {
	t.Helper()
	for _, w := range all {
		isExplained := strings.HasPrefix(w.Line, "sdtrace why ") && w.Status == 3 && strings.Contains(w.Output, "\ncause (")
		if w.Status != 0 && !isExplained {
			t.Errorf("# %s: status %d\n%s", w.Line, w.Status, w.Output)
		}
		checkStatuses(t, w.Meanwhile)
	}
}
