// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// libsystemd is a child process that asks systemd's own code.
type libsystemd struct {
	in  io.Writer
	out *bufio.Reader
}

// startLibsystemd starts a script with the installed libsystemd-shared.
func startLibsystemd(tb testing.TB, script string) *libsystemd {
	tb.Helper()
	var libs []string
	for _, dir := range []string{"/usr/lib/*/systemd", "/usr/lib/systemd", "/usr/lib64/systemd"} {
		found, err := filepath.Glob(dir + "/libsystemd-shared-*.so")
		if err != nil {
			tb.Fatal(err)
		}
		libs = append(libs, found...)
	}
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil || len(libs) == 0 {
		if os.Getenv("SDTRACE_REQUIRE_LIBSYSTEMD") == "1" {
			tb.Fatalf("%s or libsystemd-shared not found, and SDTRACE_REQUIRE_LIBSYSTEMD=1", python)
		}
		tb.Skipf("%s or libsystemd-shared not found: nothing to compare with", python)
	}
	cmd := exec.Command(python, script, libs[len(libs)-1])
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("%s: %v", script, err)
		}
	})
	return &libsystemd{in, bufio.NewReader(out)}
}

// startTokenizer starts systemd's tokenizer.
func startTokenizer(tb testing.TB) *libsystemd {
	return startLibsystemd(tb, "../events/testdata/tokenize.py")
}

func (l *libsystemd) tokenize(tb testing.TB, payload []byte) []string {
	tb.Helper()
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	if _, err := l.in.Write(append(frame, payload...)); err != nil {
		tb.Fatal(err)
	}
	var head struct {
		Code  int32
		Lines uint32
	}
	if err := binary.Read(l.out, binary.LittleEndian, &head); err != nil {
		tb.Fatal(err)
	}
	var lines []string
	for range head.Lines {
		var n uint32
		if err := binary.Read(l.out, binary.LittleEndian, &n); err != nil {
			tb.Fatal(err)
		}
		line := make([]byte, n)
		if _, err := io.ReadFull(l.out, line); err != nil {
			tb.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	if head.Code < 0 {
		tb.Fatalf("systemd refuses %q: %d", payload, head.Code)
	}
	return lines
}

// What systemd can be asked whether a value is, in the order of accepts.py.
const (
	takesText uint32 = iota
	takesErrno
	takesFDName
)

// startAccepts starts systemd's checks of values.
func startAccepts(tb testing.TB) *libsystemd { return startLibsystemd(tb, "testdata/accepts.py") }

func (l *libsystemd) accepts(tb testing.TB, what uint32, value []byte) bool {
	tb.Helper()
	frame := binary.LittleEndian.AppendUint32(nil, what)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(value)))
	if _, err := l.in.Write(append(frame, value...)); err != nil {
		tb.Fatal(err)
	}
	answer, err := l.out.ReadByte()
	if err != nil {
		tb.Fatal(err)
	}
	return answer == 1
}

// choosePolicy makes a policy out of bits: for each key any of its actions,
// with small limits.
func choosePolicy(tb testing.TB, bits uint64) Policy {
	tb.Helper()
	values := map[string]string{"max": "30s", "budget": "20s", "max-bytes": "16", "every": "1s", "max-fds": "2", "prefix": "web-"}
	var p Policy
	for key := range KeyUnknown {
		choice := bits >> (2 * key) & 3
		if choice == 0 {
			continue
		}
		o := options[key][int(choice-1)%len(options[key])]
		rule := key.String() + " " + o.action.String()
		// The last of the choices is the one without limits, where that can be.
		if choice < 3 || o.action == Clamp {
			for _, name := range o.arguments {
				rule += " " + name + "=" + values[name]
			}
		}
		if err := p.Set(rule); err != nil {
			tb.Fatal(err)
		}
	}
	return p
}

func chooseSender(bits uint64) *fakeSender {
	bits >>= 50
	s := &fakeSender{
		stops: bits&1 != 0, noInode: bits&2 != 0, noClock: bits&4 != 0, sameNames: bits&8 != 0, pidfd: 9,
	}
	s.why = []Reason{ReasonNone, ReasonNone, ReasonForeignProcess, ReasonNoSuchProcess}[bits>>4&3]
	return s
}

// examination holds what is known of a datagram and of what was made of it.
type examination struct {
	testing.TB
	policy Policy
	sender *fakeSender
	fds    int
	in     []string // lines, as systemd reads them
	out    []string
}

func (x *examination) allowed(key Key) bool { return x.policy.Rule(key).Action != Deny }

// first is the value that systemd reads of a key in the datagram.
func (x *examination) first(key string) (string, bool) {
	for _, line := range x.in {
		if value, found := strings.CutPrefix(line, key+"="); found {
			return value, true
		}
	}
	return "", false
}

// firstNumber is first as a number, if every reader takes it for the same.
func (x *examination) firstNumber(key string) (uint64, bool) {
	value, _ := x.first(key)
	n, err := strconv.ParseUint(value, 10, 64)
	return n, err == nil && strconv.FormatUint(n, 10) == value
}

// asText is what the container's text may look like on the host.
func asText(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		s = s[n:]
		switch {
		case unicode.Is(unicode.Cc, r):
			b.WriteByte(' ')
		case unicode.Is(unicode.Noncharacter_Code_Point, r):
			b.WriteRune('\ufffd')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// mainPID is the process that the datagram may make the main one, and the inode
// of its pidfd, or 0.
func (x *examination) mainPID() (pid, inode uint64) {
	if !x.allowed(KeyMainPID) {
		return 0, 0
	}
	number, ok := x.firstNumber("MAINPID")
	if x.allowed(KeyMainPIDFD) && slices.Contains(x.in, "MAINPIDFD=1") {
		number, ok = x.sender.pidfd, x.fds == 1
	}
	if !ok || number == 0 {
		return 0, 0
	}
	host, inode, why := x.sender.found(number)
	if why != ReasonNone {
		return 0, 0
	}
	return uint64(host), inode
}

// justified reports whether the policy and the datagram account for a line
// that goes to the host.
func (x *examination) justified(line string) bool {
	name, value, _ := strings.Cut(line, "=")
	own, sent := x.first(name)
	n, numberErr := strconv.ParseUint(value, 10, 64)
	switch name {
	case "MAINPID":
		pid, _ := x.mainPID()
		return n != 0 && n == pid
	case "MAINPIDFDID":
		_, inode := x.mainPID()
		return x.allowed(KeyMainPIDFDID) && n != 0 && n == inode && (!sent || own == value)
	case "MAINPIDFD":
		return x.allowed(KeyMainPIDFD) && slices.Contains(x.in, line) && x.fds == 1 && !slices.Contains(x.out, "FDSTORE=1")
	case "READY", "RELOADING", "RESTART_RESET", "FDPOLL":
		return x.allowed(keysByName[name]) && slices.Contains(x.in, line) && line == syntax[keysByName[name]].start
	case "STOPPING":
		return x.allowed(KeyStopping) && slices.Contains(x.in, line) && (x.sender.stops || x.policy.Rule(KeyStopping).Action == Allow)
	case "MONOTONIC_USEC":
		usec, _ := x.firstNumber(name)
		host, ok := x.sender.hostClock(usec)
		return x.allowed(KeyMonotonic) && slices.Contains(x.out, "RELOADING=1") && (n == x.sender.now() || (sent && ok && n == host))
	case "WATCHDOG":
		return own == value && (value == "1" && x.allowed(KeyWatchdog) || value == "trigger" && x.allowed(KeyTrigger))
	case "WATCHDOG_USEC":
		rule := x.policy.Rule(KeyWatchdogUSec)
		usec, ok := x.firstNumber(name)
		return rule.Action != Deny && ok && n <= usec && (rule.Action == Allow && n == usec || n > 0 && n <= 30e6)
	case "EXTEND_TIMEOUT_USEC":
		rule := x.policy.Rule(KeyExtendTimeout)
		usec, ok := x.firstNumber(name)
		return rule.Action != Deny && ok && n > 0 && n <= usec && (rule.Action == Allow && n == usec || n <= 20e6)
	case "FDSTORE":
		return x.allowed(KeyFDStore) && slices.Contains(x.in, line) && x.fds > 0 && value == "1" && !slices.Contains(x.in, "FDSTOREREMOVE=1")
	case "FDSTOREREMOVE":
		_, named := x.first("FDNAME")
		return x.allowed(KeyFDStoreRemove) && slices.Contains(x.in, line) && value == "1" && named
	case "FDNAME":
		if !sent {
			own = "stored"
		}
		store := slices.Contains(x.out, "FDSTORE=1") || slices.Contains(x.out, "FDSTOREREMOVE=1")
		return x.allowed(KeyFDName) && store && value == x.policy.Rule(KeyFDName).Prefix+own && len(value) <= 255
	case "NOTIFYACCESS":
		return x.allowed(KeyNotifyAccess) && own == value && slices.Contains([]string{"none", "main", "exec", "all"}, value)
	case "ERRNO":
		return x.allowed(KeyErrno) && own == value && (numberErr == nil && n <= 4095 || strings.HasPrefix(value, "E"))
	case "EXIT_STATUS":
		return x.allowed(KeyExitStatus) && own == value && numberErr == nil && n <= 255
	case "BUSERROR", "VARLINKERROR":
		return x.allowed(keysByName[name]) && own == value
	case "STATUS":
		return x.allowed(KeyStatus) && x.justifiedStatus(value)
	}
	return strings.HasPrefix(name, "X_") && x.allowed(KeyPrivate) &&
		slices.ContainsFunc(x.in, func(in string) bool { return asText(in) == line })
}

func (x *examination) justifiedStatus(value string) bool {
	rule := x.policy.Rule(KeyStatus)
	own, sent := x.first("STATUS")
	switch {
	case !sent:
		return value == rule.Prefix+"Stopping" && slices.Contains(x.in, "STOPPING=1")
	case own == "":
		return value == ""
	case rule.MaxBytes > 0 && len(value) > len(rule.Prefix)+rule.MaxBytes:
		return false
	}
	return strings.HasPrefix(rule.Prefix+asText(own), value)
}

// checkForm makes sure that a datagram is in the one form in which the relay writes.
func checkForm(tb testing.TB, payload []byte) {
	tb.Helper()
	if len(payload) == 0 || len(payload) > events.MaxPayload {
		tb.Errorf("%d bytes", len(payload))
	}
	if bytes.HasSuffix(payload, []byte("\n")) || bytes.Contains(payload, []byte("\n\n")) {
		tb.Errorf("empty line in %q", payload)
	}
	for _, line := range strings.Split(string(payload), "\n") {
		if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
			tb.Errorf("%q is not text", line)
		}
		if strings.Contains(strings.ReplaceAll(line, `\\`, ""), `\`) {
			tb.Errorf("backslash without another in %q", line)
		}
	}
}

// checkLines makes sure that every line is justified, and none given twice, which
// would make it a matter of the order what systemd reads.
func (x *examination) checkLines() {
	x.Helper()
	seen := make(map[string]bool)
	last := -1
	for _, line := range x.out {
		if !x.justified(line) {
			x.Errorf("%q is not accounted for", line)
		}
		name, _, _ := strings.Cut(line, "=")
		key, known := keysByName[name]
		switch {
		case !known:
			key = KeyPrivate
		case seen[name]:
			x.Errorf("%s twice", name)
		case line == syntax[KeyTrigger].start:
			key = KeyTrigger
		}
		seen[name] = true
		if at := slices.Index(order[:], key); at < last {
			x.Errorf("%q comes too late", line)
		} else {
			last = at
		}
	}
}

// checkLosses makes sure that what is plain and allowed is forwarded.
func (x *examination) checkLosses() {
	x.Helper()
	for _, key := range []Key{KeyReady, KeyReloading, KeyRestartReset} {
		line := syntax[key].start
		if x.allowed(key) && slices.Contains(x.in, line) && !slices.Contains(x.out, line) {
			x.Errorf("%q is lost", line)
		}
	}
	if pid, _ := x.mainPID(); pid != 0 && !slices.Contains(x.in, "FDSTORE=1") {
		line := fmt.Sprintf("MAINPID=%d", pid)
		id, sent := x.first("MAINPIDFDID")
		_, inode := x.mainPID()
		lost := !slices.Contains(x.out, line)
		if refused := sent && inode != 0 && x.allowed(KeyMainPIDFDID) && id != strconv.FormatUint(inode, 10); lost && !refused {
			x.Errorf("%q is lost", line)
		}
	}
	if _, sent := x.first("STATUS"); sent && x.allowed(KeyStatus) &&
		!slices.ContainsFunc(x.out, func(line string) bool { return strings.HasPrefix(line, "STATUS=") }) {
		x.Error("STATUS is lost")
	}
}

// checkDecisions makes sure that there is one decision on each line.
func (x *examination) checkDecisions(decisions []Decision) {
	x.Helper()
	lines := 0
	for _, d := range decisions {
		if d.Key != KeyNone && d.Verdict != Added {
			lines++
		}
		if d.Verdict == Denied && d.Reason == ReasonNone {
			x.Errorf("%s denied without a reason", d.Key)
		}
	}
	if lines != len(x.in) {
		x.Errorf("%d decisions on %d lines: %v", lines, len(x.in), decisions)
	}
}

// checkStable makes sure that a datagram of the relay is what another one, that
// allows everything and finds nothing to translate, makes of it.
func (x *examination) checkStable(payload []byte) {
	x.Helper()
	p := mustPolicy(x, DefaultPolicy(), allowAll)
	has := func(start string) bool {
		return slices.ContainsFunc(x.out, func(line string) bool { return strings.HasPrefix(line, start) })
	}
	if !has("MONOTONIC_USEC=") {
		p.rules[KeyMonotonic] = Rule{}
	}
	if !has("MAINPIDFDID=") {
		p.rules[KeyMainPIDFDID] = Rule{}
	}
	s := &fakeSender{sameNames: true, stops: true}
	s.pidfd, _ = x.mainPID()
	b := newBench(p)
	if again := b.send(string(payload), x.fds, s); again != string(payload) {
		x.Errorf("judged again: - first, + again\n%s", cmp.Diff(string(payload), again))
	}
	for _, d := range b.decisions {
		if d.Verdict != Forwarded && d.Reason != ReasonUnusedFDs {
			x.Errorf("judged again: %v", b.lines)
		}
	}
}

// examine filters a datagram under a policy, both chosen by bits, and checks
// what comes out, as read by tokenize.
func examine(t testing.TB, payload []byte, fds int, bits uint64, tokenize func([]byte) []string) {
	t.Helper()
	x := &examination{TB: t, policy: choosePolicy(t, bits), sender: chooseSender(bits), fds: fds}
	b := newBench(x.policy)
	// What other datagrams leave in the buffers must not matter.
	b.send("MAINPID=1\nSTATUS=stale\nFDNAME=stale\nX_STALE=1\nERRNO=1\nWATCHDOG_USEC=1", 1, x.sender)

	j := b.judge(payload, fds, x.sender)
	if _, err := events.Tokenize(payload); err != nil || len(payload) == 0 {
		if (j != judgement{}) || len(b.decisions) != 1 || b.decisions[0].Key != KeyNone {
			t.Errorf("%q is refused by systemd, here %+v, %q", payload, j, b.lines)
		}
		return
	}
	x.in = tokenize(bytes.TrimSuffix(payload, []byte{0}))
	if slices.Contains(x.in, "BARRIER=1") {
		good := len(x.in) == 1 && fds == 1 && x.allowed(KeyBarrier)
		if want := (judgement{barrier: good}); j != want {
			t.Errorf("%q with %d file descriptors: %+v, want %+v", payload, fds, j, want)
		}
		return
	}
	x.checkDecisions(b.decisions)
	if j.msg != nil {
		sent := j.msg.append(nil)
		checkForm(t, sent)
		x.out = tokenize(sent)
		x.checkStable(sent)
	}
	x.checkLines()
	x.checkLosses()
	if want := slices.Contains(x.out, "FDSTORE=1"); j.storeFDs != want {
		t.Errorf("storeFDs %t", j.storeFDs)
	}
	if want := slices.Contains(x.out, "MAINPIDFD=1"); j.mainFD != want {
		t.Errorf("mainFD %t", j.mainFD)
	}
	if t.Failed() {
		t.Logf("payload %q, %d file descriptors, policy\n%s", payload, fds, x.policy)
		t.Logf("read %q, sent %q, decided %q", x.in, x.out, b.lines)
	}
}

const (
	allBits     = 1<<64 - 1
	defaultBits = 0x0000_0155_5455_5555
)

func addSeeds(f *testing.F) {
	for _, tc := range typical {
		for _, bits := range []uint64{0, defaultBits, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, 0x000f_ffff_ffff_ffff} {
			f.Add([]byte(tc.payload), uint8(tc.fds), bits)
		}
	}
	for _, payload := range []string{
		"STATUS=x\rREADY=1", "STATUS=x\\\nREADY=1", `NOTIFY\ACCESS=all`, "X_A=\\\nMAINPID=1\nX_B=\\\rREADY=1", "STATUS=\\\\\\\\",
		"STOPPING=1\nREADY=1", "FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=a:b", "MAINPID=7\nMAINPIDFD=1\nMAINPIDFDID=71009",
		"MAINPID=06", "WATCHDOG=trigger\nWATCHDOG=1\nWATCHDOG_USEC=0", "EXTEND_TIMEOUT_USEC=18446744073709551615", "BARRIER=1\nREADY=1",
		"STATUS=" + strings.Repeat("\xff", events.MaxPayload-7),
		"X_A=" + strings.Repeat("\\\\", 1900) + "\nSTATUS=" + strings.Repeat("\uffff", 90),
		"MAINPID=7\nRELOADING=1\nREADY=1\nX_A=" + strings.Repeat("x", 3980) + "\nSTATUS=" + strings.Repeat("ü", 40),
	} {
		f.Add([]byte(payload), uint8(1), uint64(defaultBits))
		f.Add([]byte(payload), uint8(1), uint64(0x000f_ffff_ffff_ffff))
	}
	f.Add([]byte("READY=1"), uint8(0), uint64(allBits))
}

func TestNothingButWhatThePolicyAllowsIsReadBySystemd(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	words := append(events.Keys(), "=1", "=1\n", "=7\n", "=a\n", "=trigger\n", "=30000000\n", "=0\r", "=71007\n", "=", "\n", "\r", "\\", "\\\n",
		"X_A=b\n", "X_A=\\\rREADY=1\n", "STATUS=ü\xff\n", "STOPPING=1\n", "READY=1\n", "RELOADING=1\n", "MAINPID=7\n", "MAINPIDFD=1\n",
		"FDSTORE=1\n", "FDSTOREREMOVE=1\n", "FDNAME=a\n", "FDPOLL=0\n", "NOTIFYACCESS=all\n", "ERRNO=5\n", "\x00", " ")
	systemd := startTokenizer(t)
	rng := rand.New(rand.NewPCG(7, 8))
	for range 20_000 {
		var payload []byte
		for range rng.IntN(16) {
			payload = append(payload, words[rng.IntN(len(words))]...)
		}
		examine(t, payload, rng.IntN(4), rng.Uint64(), func(s []byte) []string { return systemd.tokenize(t, s) })
		if t.Failed() {
			return
		}
	}
}

// FuzzFilter: nothing reaches the host but what the policy allows of what the
// container said, in a form that can be read in one way only.
func FuzzFilter(f *testing.F) {
	vmtest.Natively(f, "text alone")
	addSeeds(f)
	f.Fuzz(func(t *testing.T, payload []byte, fds uint8, bits uint64) {
		examine(t, payload, int(fds%4), bits, func(s []byte) []string {
			lines, err := events.Tokenize(s)
			if err != nil {
				t.Fatal(err)
			}
			return lines
		})
	})
}

// FuzzFilterAgainstSystemd is FuzzFilter with systemd's own tokenizer.
func FuzzFilterAgainstSystemd(f *testing.F) {
	vmtest.Natively(f, "text alone")
	addSeeds(f)
	systemd := startTokenizer(f)
	f.Fuzz(func(t *testing.T, payload []byte, fds uint8, bits uint64) {
		examine(t, payload, int(fds%4), bits, func(s []byte) []string { return systemd.tokenize(t, s) })
	})
}
