// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/systemd1"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/verdict"
	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// properties are those that a unit's state is made of.
var properties = []string{
	"Type", "NotifyAccess", "MainPID", "ControlPID", "SubState", "WatchdogUSec", "WatchdogTimestampMonotonic",
	"FileDescriptorStoreMax", "NFileDescriptorStore", "StatusText", "StatusErrno", "StatusBusError", "StatusVarlinkError",
	"FreezerState", "ExecStartPost", "StateChangeTimestampMonotonic",
}

// shown are properties of a unit, by name.
type shown map[string]string

func (u *unit) show(t *testing.T) shown {
	t.Helper()
	s, err := u.m.Show(await.Context(t), u.name+".service", properties...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// marks are the names of units that are not there, for which systemd is asked so that it logs them.
var marks atomic.Int64

// log returns all that systemd has logged until now.
func (u *unit) log(t *testing.T) (log string) {
	t.Helper()
	mark := fmt.Sprintf("mark%d", marks.Add(1))
	if _, err := u.m.Show(await.Context(t), mark+".service", "Id"); err != nil {
		t.Fatal(err)
	}
	if !u.m.Console.Await(await.Context(t), func(all string) bool { log = all; return strings.Contains(all, "/unit/"+mark+"_2eservice") }) {
		t.Fatal("systemd does not log")
	}
	return log
}

// hostPID translates a process id of systemd's pid namespace.
func (u *unit) hostPID(inside string) *uint32 {
	var pid uint32
	switch n, err := strconv.Atoi(inside); {
	case err != nil:
		return nil
	case n == 0:
	case n == 1:
		pid = uint32(u.m.PID())
	default:
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, a := range u.came {
			if a.PID == n {
				pid = uint32(a.host)
			}
		}
		if pid == 0 {
			return nil
		}
	}
	return &pid
}

// ask asks systemd for the unit over its private socket.
func (u *unit) ask(t *testing.T) *systemd1.Service {
	t.Helper()
	s, err := buses[u.m].Service(await.Context(t), u.name+".service", func(pid uint32) (*uint32, time.Duration) {
		host := u.hostPID(strconv.FormatUint(uint64(pid), 10))
		if host == nil {
			return nil, 0
		}
		return host, started(t, int(*host))
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// started is when a process was started, by CLOCK_MONOTONIC, at the latest; 0 when it is gone.
func started(t *testing.T, pid int) time.Duration {
	t.Helper()
	p, err := proc.Open(pid)
	if err != nil {
		return 0
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return 0
	}
	return time.Duration(stat.StartTicks+1)*proc.Tick - proc.BootTime() + monotonic(t)
}

func monotonic(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// state is what systemd tells of the unit now, and what the test knows beside.
func (u *unit) state(t *testing.T) *verdict.Unit {
	t.Helper()
	state := u.ask(t).Now
	u.tell(&state)
	return &state
}

// tell says what no property tells.
func (u *unit) tell(state *verdict.Unit) {
	handled, stopping := !u.ignoring, u.stopping
	state.ReloadHandled, state.Stopping = &handled, &stopping
}

// scenario is a datagram to a service manager about which it decides.
type scenario struct {
	name string
	// service are lines of the section [Service]; %A is the command of an agent.
	service []string
	// since is the version of systemd that has what the scenario is about.
	since int
	// prepare brings the unit, which is there and not started, into its state.
	prepare func(t *testing.T, u *unit)
	// from is the agent that sends, "main" if it is empty, "host" for a process outside.
	from string
	// order is what it is told. {NAME} in the text is the process id of the agent.
	order order
	// claims is an agent whose process id the sender claims, passes one of which it passes a pidfd.
	claims, passes string
	// in is the unit that the sender belongs to; "" for the scenario's own.
	in string
	// know says what neither a property nor a message tells.
	know func(*verdict.Unit, *verdict.Datagram)
	// ends is set when the sender does not survive it.
	ends bool
	// want is the verdicts on its lines, by the version since which they are so.
	want map[int]string
}

// want is the verdicts for all versions.
func always(verdicts string) map[int]string { return map[int]string{0: verdicts} }

func (s *scenario) wanted(version int) string {
	for _, since := range slices.Backward(slices.Sorted(mapKeys(s.want))) {
		if version >= since {
			return s.want[since]
		}
	}
	return ""
}

// playsOn reports whether it is played on a service manager. One that is to come to the same on all is played on the
// oldest and the newest, and on all when make prove runs the tests.
func (s *scenario) playsOn(m *pid1.Systemd) bool {
	able := slices.DeleteFunc(slices.Clone(managers), func(m *pid1.Systemd) bool { return m.Major < s.since })
	return m.Major >= s.since && (vmtest.All() || len(s.want) > 1 || m == able[0] || m == able[len(able)-1])
}

func mapKeys(m map[int]string) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestVerdictsAreThoseOfSystemd compares, for each scenario and version, what the package says with
// what is expected, with what systemd logs, and with what its properties are afterwards.
func TestVerdictsAreThoseOfSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	if testing.Short() {
		t.Skip("not declared: a minute and more")
	}
	vmtest.Natively(t, "systemd decides, without programs in the kernel")
	t.Cleanup(func() {
		unknown, all := lookedLate.unknown.Load(), lookedLate.all.Load()
		t.Logf("looked at later, %d verdicts of %d are unknown", unknown, all)
		if 3*unknown > all {
			t.Error("that is more than a third")
		}
		seenLive.check(t)
	})
	for _, m := range managers {
		t.Run(m.Version, func(t *testing.T) {
			t.Parallel()
			if _, err := m.Systemctl(await.Context(t), "log-level", "debug"); err != nil {
				t.Fatal(err)
			}
			for i := range scenarios {
				if !scenarios[i].playsOn(m) {
					continue
				}
				t.Run(scenarios[i].name, func(t *testing.T) { scenarios[i].play(t, m, i) })
			}
		})
	}
}

// play plays the scenario, and once more where the capture says another verdict: with tracepoints a send that had no
// processor for a tenth of a second is taken for a later one (docs/verdict.md), and that is not so each time.
func (s *scenario) play(t *testing.T, m *pid1.Systemd, i int) {
	others := s.playOnce(t, m, fmt.Sprintf("s%d", i))
	if len(others) == 0 {
		return
	}
	t.Logf("it is played once more: %s", strings.Join(others, "; "))
	for _, other := range s.playOnce(t, m, fmt.Sprintf("s%d-again", i)) {
		t.Error(other)
	}
	seenLive.forget(len(others))
}

// playOnce plays it in a unit of that name, and returns the verdicts of the capture that are known and others.
func (s *scenario) playOnce(t *testing.T, m *pid1.Systemd, name string) (others []string) {
	u := define(t, m, name, s.service...)
	s.prepare(t, u)
	from := u.sender(t, cmp.Or(s.from, "main"))
	o := s.order
	o.Send = u.fill(t, o.Send)
	if s.claims != "" {
		o.Claim, o.UID = u.agent(t, s.claims).PID, from.UID
	}
	if s.passes != "" {
		o.PIDFD = u.agent(t, s.passes).PID
	}
	before := u.show(t)
	logged := len(u.log(t))
	d, state := u.datagram(t, from, &o), u.state(t)
	if s.know != nil {
		s.know(state, d)
	}
	if s.in != "" {
		state = &verdict.Unit{Name: s.in}
	}
	verdicts, predicted := verdict.Judge(d, verdict.Manager{Version: m.Major, PID: uint32(m.PID())}, state)

	sent := proc.BootTime()
	if s.ends {
		from.tell(t, o)
		await.Until(t, "the service ends", func() bool { return u.show(t)["SubState"] != before["SubState"] })
	} else {
		u.send(t, from, o)
		waits := from
		if from.Name == host {
			waits = u.agent(t, "main")
		}
		waits.do(t, order{Barrier: true})
	}
	after := u.show(t)
	late := u.ask(t)
	log := about(u.log(t)[logged:], u.name+".service")

	var got []string
	for _, v := range verdicts {
		value := v.Assignment.Value
		if v.Assignment.Key == "MONOTONIC_USEC" && len(value) > 3 {
			value = "{now}"
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s=%s %s %s", v.Assignment.Key, value, v.Outcome, v.Rule)))
	}
	if diff := gocmp.Diff(u.fillPIDs(s.wanted(m.Major)), strings.Join(got, ", ")); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s%+v", diff, verdicts)
	}
	s.compare(t, u, verdicts, predicted, before, after, log)
	if s.in == "" && s.know == nil {
		u.lookLate(t, d, late, verdicts)
	}
	if s.in == "" && from.Name != host {
		pid := from.host
		if o.Lone {
			pid = 0
		}
		others = seenLive.compare(t, m, message{o.Send, pid, sent, verdicts})
	}
	if t.Failed() || len(others) > 0 {
		t.Logf("before %v\nafter %v\nlog:\n%s", before, after, log)
	}
	return others
}

// lookLate judges by what systemd tells afterwards, as a capture has to: that may leave unknown what
// was, and is never something else.
func (u *unit) lookLate(t *testing.T, d *verdict.Datagram, late *systemd1.Service, verdicts []verdict.Verdict) {
	t.Helper()
	state := late.At(d.Read, func(key string) bool {
		_, said := d.Text.Lookup(key)
		return said
	})
	u.tell(state)
	again, _ := verdict.Judge(d, verdict.Manager{Version: u.m.Major, PID: uint32(u.m.PID())}, state)
	for i, v := range again {
		lookedLate.all.Add(1)
		// Whether it was so already is not known later on.
		was := verdicts[i]
		if v.Outcome == verdict.Heeded && was.Rule == "S1" {
			continue
		}
		if v.Outcome == verdict.Unknown {
			lookedLate.unknown.Add(1)
			t.Logf("not known later on: %s=%s: %s", v.Assignment.Key, v.Assignment.Value, v.Reason)
		} else if v.Outcome != was.Outcome || v.Rule != was.Rule {
			t.Errorf("%s=%s: %s by %s, and looked at later %s by %s", v.Assignment.Key, v.Assignment.Value, was.Outcome, was.Rule, v.Outcome, v.Rule)
		}
	}
}

// lookedLate counts the verdicts by what systemd tells afterwards.
var lookedLate struct{ all, unknown atomic.Int64 }

// about returns the lines that contain a word.
func about(log, word string) string {
	var lines strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, word) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// host is the name of a sender outside.
const host = "host"

// sender returns the agent that sends.
func (u *unit) sender(t *testing.T, name string) *agent {
	t.Helper()
	if name == host {
		return &agent{hello: hello{Name: host}, host: os.Getpid()}
	}
	return u.agent(t, name)
}

// send has an agent send.
func (u *unit) send(t *testing.T, from *agent, o order) {
	t.Helper()
	switch {
	case from.Name == host:
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s)
		if err := unix.Sendto(s, o.Send, 0, &unix.SockaddrUnix{Name: u.m.Inside("/run/systemd/notify")}); err != nil {
			t.Fatal(err)
		}
	case o.Lone:
		// It is read when the sender is gone for sure.
		if err := u.m.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		from.do(t, o)
		if err := u.m.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
	default:
		from.do(t, o)
	}
}

// fill puts process ids and the time into a text.
func (u *unit) fill(t *testing.T, text []byte) []byte { return []byte(u.fillText(t, string(text))) }

func (u *unit) fillText(t *testing.T, text string) string {
	t.Helper()
	return strings.ReplaceAll(u.fillPIDs(text), "{now}", strconv.FormatInt(monotonic(t).Microseconds(), 10))
}

// fillPIDs puts process ids into a text.
func (u *unit) fillPIDs(text string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, a := range u.came {
		text = strings.ReplaceAll(text, "{"+name+"}", strconv.Itoa(a.PID))
	}
	return text
}

// datagram is what a capture and a look at /proc would tell.
func (u *unit) datagram(t *testing.T, from *agent, o *order) *verdict.Datagram {
	t.Helper()
	size, no, gone, foreign := uint32(len(o.Send)), false, o.Lone, from.Name == host
	uid := uint32(from.UID)
	d := &verdict.Datagram{
		Text: new(events.Text), Size: &size, PID: uint32(from.host), UID: &uid, FDs: &o.FDs, ControlTruncated: &no,
		Foreign: &foreign, Gone: &gone,
	}
	d.Text.Split(o.Send, false)
	d.Read = monotonic(t)
	if o.Claim != 0 {
		if pid := u.hostPID(strconv.Itoa(o.Claim)); pid != nil {
			d.PID = *pid
		}
	}
	if o.Lone {
		d.PID = 1 << 22 // whatever number it had
	}
	for _, l := range d.Text.Lines {
		if a, ok := l.Assignment(); ok && a.Key == "MAINPID" {
			d.Main = u.process(a.Value)
			break
		}
	}
	if o.PIDFD != 0 {
		d.Main = u.process(strconv.Itoa(o.PIDFD))
	}
	return d
}

// process is the one of a number inside.
func (u *unit) process(inside string) *verdict.Process {
	pid := u.hostPID(inside)
	if pid == nil || *pid == 0 {
		return new(verdict.Process)
	}
	p := &verdict.Process{PID: *pid}
	if cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", *pid)); err == nil && strings.Contains(string(cgroup), "/"+u.name+".service") {
		p.Unit = u.name + ".service"
	}
	return p
}

// accepted is what systemd logs of a datagram that a unit reads, and refused what it logs of another.
const (
	accepted = ": Got notification message from PID"
	refused  = ", but reception "
)

// compare holds the verdicts against systemd.
func (s *scenario) compare(t *testing.T, u *unit, verdicts []verdict.Verdict, predicted *verdict.Unit, before, after shown, log string) {
	t.Helper()
	read := false
	for line := range strings.Lines(log) {
		if strings.Contains(line, u.name+".service"+accepted) && !strings.Contains(line, refused) {
			read = true
		}
	}
	heeded := map[string]bool{}
	for _, v := range verdicts {
		rule := v.Rule
		if whole := strings.HasPrefix(rule, "R") || slices.Contains([]string{"D1", "D2", "D3"}, rule); whole == read && v.Assignment.Key != "" {
			t.Errorf("%s: %s by rule %s, and systemd read it: %v", v.Assignment, v.Outcome, rule, read)
		}
		if name := effectOf(v, before); name != "" {
			heeded[name] = heeded[name] || v.Outcome == verdict.Heeded
		}
	}
	for name, heeded := range heeded {
		if changed := before[name] != after[name]; changed != heeded {
			t.Errorf("something about %s is heeded: %v; it was %q and is %q", name, heeded, before[name], after[name])
		}
	}
	if s.ends || s.in != "" {
		return
	}
	if predicted.SubState != "" && predicted.SubState != after["SubState"] {
		t.Errorf("the state is %s, and %s was predicted", after["SubState"], predicted.SubState)
	}
	real := u.state(t)
	if predicted.MainPID != nil && real.MainPID != nil && *predicted.MainPID != *real.MainPID {
		t.Errorf("the main process is %d, and %d was predicted", *real.MainPID, *predicted.MainPID)
	}
	if u.m.Major >= 254 && predicted.NotifyAccess != "" && predicted.NotifyAccess != real.NotifyAccess {
		t.Errorf("NotifyAccess= is %s, and %s was predicted", real.NotifyAccess, predicted.NotifyAccess)
	}
}

// effectOf is the property in which it shows that an assignment is heeded; "" for none.
func effectOf(v verdict.Verdict, before shown) string {
	switch v.Rule {
	case "D8", "D12a": // the start fails; others are told
		return ""
	}
	switch v.Assignment.Key {
	case "WATCHDOG":
		if before["WatchdogUSec"] != "0" && v.Assignment.Value == "1" {
			return "WatchdogTimestampMonotonic"
		}
	case "STATUS":
		return "StatusText"
	case "ERRNO":
		return "StatusErrno"
	case "BUSERROR":
		return "StatusBusError"
	case "VARLINKERROR":
		return "StatusVarlinkError"
	case "MAINPID", "MAINPIDFD":
		return "MainPID"
	case "FDSTORE":
		return "NFileDescriptorStore"
	case "READY", "STOPPING", "RELOADING":
		return "SubState"
	}
	return ""
}
