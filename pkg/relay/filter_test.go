// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// fakeSender is in a pid namespace whose numbers are the host's less 1000, and
// in a time namespace whose clock is ahead by 5000 µs.
type fakeSender struct {
	why       Reason // of a process it names
	noInode   bool
	noClock   bool
	stops     bool
	sameNames bool   // it is in the host's namespaces
	pidfd     uint64 // the process behind the pidfd it passes
	time      uint64
	asked     []string
}

const (
	fakeNow   = 1_000_000
	inodeBase = 70_000
)

func (s *fakeSender) found(pid uint64) (int, uint64, Reason) {
	if !s.sameNames {
		pid += 1000
	}
	switch {
	case s.why != ReasonNone:
		return 0, 0, s.why
	case pid > math.MaxInt32:
		return 0, 0, ReasonNoSuchProcess
	case s.noInode:
		return int(pid), 0, ReasonNone
	}
	return int(pid), inodeBase + pid, ReasonNone
}

func (s *fakeSender) mainPID(pid uint64) (int, uint64, Reason) {
	s.asked = append(s.asked, "mainPID")
	return s.found(pid)
}

func (s *fakeSender) mainPIDFD() (int, uint64, Reason) {
	s.asked = append(s.asked, "mainPIDFD")
	return s.found(s.pidfd)
}

func (s *fakeSender) hostClock(usec uint64) (uint64, bool) {
	s.asked = append(s.asked, "hostClock")
	if !s.sameNames {
		usec -= min(usec, 5000)
	}
	return min(usec, s.now()), !s.noClock
}

func (s *fakeSender) now() uint64 { return fakeNow + s.time }

func (s *fakeSender) reloadsUnit() bool { return true }
func (s *fakeSender) readiesUnit() bool { return true }

func (s *fakeSender) stopsUnit() bool {
	s.asked = append(s.asked, "stopsUnit")
	return s.stops
}

// allowAll lets everything pass that can, without limits.
const allowAll = `
EXTEND_TIMEOUT_USEC allow
FDSTORE allow
FDSTOREREMOVE allow
NOTIFYACCESS allow
RESTART_RESET allow
STOPPING allow
WATCHDOG_USEC allow
WATCHDOG=trigger allow
X_* allow
`

// bench is a filter whose decisions are kept.
type bench struct {
	filter    *filter
	counters  counters
	decisions []Decision
	lines     []string // the decisions, written out
}

func newBench(p Policy) *bench { return &bench{filter: newFilter(&p, &unitPhase{})} }

func (b *bench) judge(payload []byte, nfds int, s sender) judgement {
	b.decisions, b.lines = nil, nil
	rec := recorder{counters: &b.counters, callback: func(d Decision) {
		line := fmt.Sprintf("%s %s %q", d.Key, d.Verdict, d.Value)
		if d.Reason != ReasonNone {
			line += ": " + d.Reason.String()
		}
		b.decisions = append(b.decisions, d)
		b.lines = append(b.lines, line)
	}}
	return b.filter.judge(payload, nfds, s, &rec)
}

// send is judge, and returns the datagram to the host, "" for none.
func (b *bench) send(payload string, nfds int, s sender) string {
	j := b.judge([]byte(payload), nfds, s)
	if j.msg == nil {
		return ""
	}
	return string(j.msg.append(nil))
}

type filterCase struct {
	name    string
	rules   string // on top of the default policy
	sender  fakeSender
	fds     int
	payload string
	want    string // what is sent to the host
	// decisions in the order in which they are made
	decisions []string
}

func runFilterCases(t *testing.T, cases []filterCase) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(mustPolicy(t, DefaultPolicy(), tc.rules))
			if diff := cmp.Diff(tc.want, b.send(tc.payload, tc.fds, &tc.sender)); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
			if diff := cmp.Diff(tc.decisions, b.lines); diff != "" {
				t.Errorf("decisions: - want, + got\n%s", diff)
			}
		})
	}
}

const nothingLeft = `datagram denied "": nothing left to forward`

func TestADatagramThatSystemdWouldDropIsRefused(t *testing.T) {
	long := "STATUS=" + strings.Repeat("x", events.MaxPayload-6)
	runFilterCases(t, []filterCase{
		{name: "empty", payload: "", decisions: []string{`datagram denied "": empty`}},
		{name: "too long", payload: long, decisions: []string{fmt.Sprintf(`datagram denied %q: too long`, long[:64])}},
		{name: "embedded NUL", payload: "READY=1\x00\nSTATUS=x", decisions: []string{`datagram denied "READY=1\x00\nSTATUS=x": embedded NUL`}},
		{name: "trailing backslash", payload: "READY=1\nSTATUS=x\\", decisions: []string{`datagram denied "READY=1\nSTATUS=x\\": trailing backslash`}},
		{name: "barrier and more", fds: 1, payload: "BARRIER=1\nREADY=1", decisions: []string{`datagram denied "BARRIER=1\nREADY=1": barrier not alone`}},
		{name: "two barriers", fds: 1, payload: "BARRIER=1\nBARRIER=1", decisions: []string{`datagram denied "BARRIER=1\nBARRIER=1": barrier not alone`}},
		{name: "no line", payload: "\n\r\n", decisions: []string{nothingLeft}},
		{name: "only a NUL", payload: "\x00", decisions: []string{nothingLeft}},
		{name: "only file descriptors", payload: "\n", fds: 2, decisions: []string{`datagram denied "": file descriptors nobody asked for`, nothingLeft}},
	})
}

func TestLinesAreReadAsSystemdReadsThem(t *testing.T) {
	runFilterCases(t, []filterCase{
		{name: "final newline and NUL", payload: "READY=1\n\x00", want: "READY=1", decisions: []string{`READY forwarded "1"`}},
		{
			name: "a literal counts at any position", payload: "STATUS=a\nREADY=0\nREADY=1", want: "READY=1\nSTATUS=a",
			decisions: []string{`READY denied "0": invalid value`, `READY forwarded "1"`, `STATUS forwarded "a"`},
		},
		{name: "not with blanks", payload: "READY=1 ", decisions: []string{`READY denied "1 ": invalid value`, nothingLeft}},
		{name: "not after blanks", payload: " READY=1", decisions: []string{`unknown denied " READY=1": unknown key`, nothingLeft}},
		{
			name: "a literal twice", payload: "READY=1\nREADY=1", want: "READY=1",
			decisions: []string{`READY denied "1": not the first`, `READY forwarded "1"`},
		},
		{
			name: "the first value counts", payload: "STATUS=a\nSTATUS=b", want: "STATUS=a",
			decisions: []string{`STATUS denied "b": not the first`, `STATUS forwarded "a"`},
		},
		{
			name: "even if it is wrong", payload: "ERRNO=x\nERRNO=5", decisions: []string{
				`ERRNO denied "5": not the first`, `ERRNO denied "x": invalid value`, nothingLeft,
			},
		},
		{
			name: "carriage return separates", payload: "STATUS=a\rMAINPID=5\rNOTIFYACCESS=all", want: "MAINPID=1005\nMAINPIDFDID=71005\nSTATUS=a",
			decisions: []string{
				`MAINPID rewritten "1005": pid namespace`, `MAINPIDFDID added "71005"`, `NOTIFYACCESS denied "all": policy`, `STATUS forwarded "a"`,
			},
		},
		{
			name: "a backslash hides no key", payload: `NOTIFY\ACCESS=all`,
			decisions: []string{`NOTIFYACCESS denied "all": policy`, nothingLeft},
		},
		{
			name: "a separator can be part of a value", payload: "STATUS=x\\\nREADY=1", want: "STATUS=x READY=1",
			decisions: []string{`STATUS rewritten "x READY=1": not text`},
		},
		{
			name: "so can a backslash", payload: `STATUS=C:\\dir`, want: `STATUS=C:\\dir`,
			decisions: []string{`STATUS forwarded "C:\\dir"`},
		},
		{
			name: "no assignment, no key of the protocol", payload: "hello\nFOO=bar\n=x\nready=1\nREADY=1", want: "READY=1",
			decisions: []string{
				`unknown denied "hello": unknown key`, `unknown denied "FOO=bar": unknown key`, `unknown denied "=x": unknown key`,
				`unknown denied "ready=1": unknown key`, `READY forwarded "1"`,
			},
		},
	})
}

func TestKeysWithoutAValueOfTheirOwn(t *testing.T) {
	for _, key := range []Key{KeyReady, KeyRestartReset, KeyWatchdog, KeyTrigger} {
		line := syntax[key].start
		_, value, _ := strings.Cut(line, "=")
		runFilterCases(t, []filterCase{
			{name: line + " allowed", rules: key.String() + " allow", payload: line, want: line, decisions: []string{fmt.Sprintf("%s forwarded %q", key, value)}},
			{name: line + " denied", rules: key.String() + " deny", payload: line, decisions: []string{fmt.Sprintf("%s denied %q: policy", key, value), nothingLeft}},
		})
	}
	runFilterCases(t, []filterCase{
		{name: "WATCHDOG=0", payload: "WATCHDOG=0", decisions: []string{`WATCHDOG denied "0": invalid value`, nothingLeft}},
		{
			name: "of two WATCHDOG systemd reads the first", payload: "WATCHDOG=trigger\nWATCHDOG=1",
			decisions: []string{`WATCHDOG denied "1": not the first`, `WATCHDOG=trigger denied "trigger": policy`, nothingLeft},
		},
		{
			name: "and not a later trigger", rules: "WATCHDOG=trigger allow", payload: "WATCHDOG=1\nWATCHDOG=trigger", want: "WATCHDOG=1",
			decisions: []string{`WATCHDOG denied "trigger": not the first`, `WATCHDOG forwarded "1"`},
		},
	})
}

func TestValuesAreForwardedIfSystemdTakesThem(t *testing.T) {
	name := strings.Repeat("n", maxName)
	for _, tc := range []struct {
		key    Key
		values []string
		wrong  []string
	}{
		{
			KeyErrno,
			[]string{"0", "2", "4095", "ENOENT", "EWOULDBLOCK", "ENOTSUP", "EDEADLOCK", "EHWPOISON"},
			[]string{"", "4096", "-1", "010", "0x10", " 5", "+5", "enoent", "EBOGUS", "ENOENT ", "99999999999999999999999"},
		},
		{KeyExitStatus, []string{"0", "1", "255"}, []string{"", "256", "-1", "01", "SUCCESS"}},
		{KeyBusError, []string{"", "org.example.Error: it is broken", name}, []string{"\\\n", "a\tb", "ü", "\x7f", name + "n"}},
		{KeyVarlinkError, []string{"", "org.example.Broken", name}, []string{"\\\n", "a\tb", "ü", "\x7f", name + "n"}},
		{KeyNotifyAccess, []string{"none", "main", "exec", "all"}, []string{"", "All", "main ", "bogus"}},
	} {
		rule := tc.key.String()
		for _, value := range tc.values {
			line := rule + "=" + value
			runFilterCases(t, []filterCase{
				{name: line, rules: rule + " allow", payload: line, want: line, decisions: []string{fmt.Sprintf("%s forwarded %q", rule, value)}},
			})
		}
		for _, value := range tc.wrong {
			// As systemd reads it, for the decision.
			plain := strings.ReplaceAll(value, `\`, "")
			runFilterCases(t, []filterCase{{
				name: rule + "=" + value, rules: rule + " allow", payload: rule + "=" + value,
				decisions: []string{fmt.Sprintf("%s denied %q: invalid value", rule, plain), nothingLeft},
			}})
		}
		line := rule + "=" + tc.values[0]
		runFilterCases(t, []filterCase{{
			name: line + " denied", rules: rule + " deny", payload: line,
			decisions: []string{fmt.Sprintf("%s denied %q: policy", rule, tc.values[0]), nothingLeft},
		}})
	}
}

func TestSystemdTakesTheErrnosAndNamesThatAreForwarded(t *testing.T) {
	systemd := startAccepts(t)
	for _, name := range events.Errnos() {
		if !systemd.accepts(t, takesErrno, []byte(name)) || !isErrno([]byte(name)) {
			t.Errorf("ERRNO=%s", name)
		}
	}
	for _, s := range []string{"0", "4095", "4096", "EBOGUS", "", "-1"} {
		if want := systemd.accepts(t, takesErrno, []byte(s)); isErrno([]byte(s)) != want {
			t.Errorf("isErrno(%q) = %t", s, !want)
		}
	}
	for _, s := range []string{"", " ", "a:b", "\\", "\x7f", "\x1f", "ü", "~", strings.Repeat("n", maxName), strings.Repeat("n", maxName+1)} {
		if want := systemd.accepts(t, takesFDName, []byte(s)); isFDName([]byte(s)) != want {
			t.Errorf("isFDName(%q) = %t", s, !want)
		}
	}
}

func TestMainPIDIsNeverForwardedUntranslated(t *testing.T) {
	runFilterCases(t, []filterCase{
		{
			name: "translated", payload: "READY=1\nMAINPID=7", want: "MAINPID=1007\nMAINPIDFDID=71007\nREADY=1",
			decisions: []string{`MAINPID rewritten "1007": pid namespace`, `MAINPIDFDID added "71007"`, `READY forwarded "1"`},
		},
		{
			name: "in the host's namespace", sender: fakeSender{sameNames: true}, payload: "MAINPID=7\nMAINPIDFDID=70007", want: "MAINPID=7\nMAINPIDFDID=70007",
			decisions: []string{`MAINPID forwarded "7"`, `MAINPIDFDID forwarded "70007"`},
		},
		{
			name: "without pidfds that mean anything", sender: fakeSender{noInode: true}, payload: "MAINPID=7", want: "MAINPID=1007",
			decisions: []string{`MAINPID rewritten "1007": pid namespace`},
		},
		{
			name: "with the number of one all the same", sender: fakeSender{noInode: true}, payload: "MAINPID=7\nMAINPIDFDID=5", want: "MAINPID=1007",
			decisions: []string{`MAINPID rewritten "1007": pid namespace`, `MAINPIDFDID denied "5": invalid value`},
		},
		{
			name: "of another process", payload: "MAINPID=7\nMAINPIDFDID=70007\nREADY=1", want: "READY=1",
			decisions: []string{`MAINPID denied "7": MAINPIDFDID of another process`, `MAINPIDFDID denied "70007": MAINPIDFDID of another process`, `READY forwarded "1"`},
		},
		{
			name: "MAINPIDFDID is no number", payload: "MAINPID=7\nMAINPIDFDID=x", decisions: []string{
				`MAINPID denied "7": MAINPIDFDID of another process`, `MAINPIDFDID denied "x": MAINPIDFDID of another process`, nothingLeft,
			},
		},
		{name: "MAINPIDFDID alone", payload: "MAINPIDFDID=71007", decisions: []string{`MAINPIDFDID denied "71007": not in this datagram`, nothingLeft}},
		{
			name: "MAINPIDFDID denied", rules: "MAINPIDFDID deny", payload: "MAINPID=7\nMAINPIDFDID=1", want: "MAINPID=1007",
			decisions: []string{`MAINPIDFDID denied "1": policy`, `MAINPID rewritten "1007": pid namespace`},
		},
		{
			name: "no such process", sender: fakeSender{why: ReasonNoSuchProcess}, payload: "MAINPID=7\nMAINPIDFDID=1",
			decisions: []string{`MAINPID denied "7": no such process`, `MAINPIDFDID denied "1": no such process`, nothingLeft},
		},
		{name: "foreign process", sender: fakeSender{why: ReasonForeignProcess}, payload: "MAINPID=7", decisions: []string{`MAINPID denied "7": process not in the container`, nothingLeft}},
		{name: "unidentified", sender: fakeSender{why: ReasonUnidentified}, payload: "MAINPID=7", decisions: []string{`MAINPID denied "7": sender unidentified`, nothingLeft}},
		{name: "zero", payload: "MAINPID=0", decisions: []string{`MAINPID denied "0": invalid value`, nothingLeft}},
		{name: "negative", payload: "MAINPID=-1", decisions: []string{`MAINPID denied "-1": invalid value`, nothingLeft}},
		{name: "octal", payload: "MAINPID=010", decisions: []string{`MAINPID denied "010": invalid value`, nothingLeft}},
		{name: "too large for 64 bits", payload: "MAINPID=18446744073709551616", decisions: []string{`MAINPID denied "18446744073709551616": invalid value`, nothingLeft}},
		{
			name: "policy", rules: "MAINPID deny", fds: 1, payload: "MAINPID=7\nMAINPIDFD=1\nMAINPIDFDID=1", decisions: []string{
				`MAINPID denied "7": policy`, `MAINPIDFD denied "1": policy`, `MAINPIDFDID denied "1": policy`,
				`datagram denied "": file descriptors nobody asked for`, nothingLeft,
			},
		},
	})
}

func TestAPidfdHasPrecedenceOverMainPID(t *testing.T) {
	sender := fakeSender{pidfd: 9}
	runFilterCases(t, []filterCase{
		{
			name: "alone", sender: sender, fds: 1, payload: "MAINPIDFD=1", want: "MAINPID=1009\nMAINPIDFDID=71009\nMAINPIDFD=1",
			decisions: []string{`MAINPID added "1009"`, `MAINPIDFD forwarded "1"`, `MAINPIDFDID added "71009"`},
		},
		{
			name: "with a number", sender: sender, fds: 1, payload: "MAINPID=7\nMAINPIDFD=1\nMAINPIDFDID=71009", want: "MAINPID=1009\nMAINPIDFDID=71009\nMAINPIDFD=1",
			decisions: []string{`MAINPID rewritten "1009": pid namespace`, `MAINPIDFD forwarded "1"`, `MAINPIDFDID forwarded "71009"`},
		},
		{
			name: "of another process", sender: sender, fds: 1, payload: "MAINPIDFD=1\nMAINPIDFDID=71007", decisions: []string{
				`MAINPIDFD denied "1": MAINPIDFDID of another process`, `MAINPIDFDID denied "71007": MAINPIDFDID of another process`,
				`datagram denied "": file descriptors nobody asked for`, nothingLeft,
			},
		},
		{name: "MAINPIDFD=0", fds: 1, payload: "MAINPIDFD=0\nREADY=1", want: "READY=1", decisions: []string{
			`MAINPIDFD denied "0": invalid value`, `READY forwarded "1"`, `datagram denied "": file descriptors nobody asked for`,
		}},
		{name: "without one", sender: sender, payload: "MAINPID=7\nMAINPIDFD=1", decisions: []string{
			`MAINPID denied "7": wrong number of file descriptors`, `MAINPIDFD denied "1": wrong number of file descriptors`, nothingLeft,
		}},
		{name: "with two", sender: sender, fds: 2, payload: "MAINPIDFD=1\nREADY=1", want: "READY=1", decisions: []string{
			`MAINPIDFD denied "1": wrong number of file descriptors`, `READY forwarded "1"`, `datagram denied "": file descriptors nobody asked for`,
		}},
		{name: "no pidfd", sender: fakeSender{why: ReasonInvalid}, fds: 1, payload: "MAINPIDFD=1", decisions: []string{
			`MAINPIDFD denied "1": invalid value`, `datagram denied "": file descriptors nobody asked for`, nothingLeft,
		}},
		{
			name: "that goes into the store", rules: "FDSTORE allow", sender: sender, fds: 1, payload: "MAINPIDFD=1\nFDSTORE=1", want: "FDSTORE=1",
			decisions: []string{`MAINPIDFD denied "1": wrong number of file descriptors`, `FDSTORE forwarded "1"`},
		},
		{
			name: "that does not go into the store", sender: sender, fds: 1, payload: "MAINPIDFD=1\nFDSTORE=1", want: "MAINPID=1009\nMAINPIDFDID=71009\nMAINPIDFD=1",
			decisions: []string{`MAINPID added "1009"`, `MAINPIDFD forwarded "1"`, `MAINPIDFDID added "71009"`, `FDSTORE denied "1": policy`},
		},
		{
			name: "denied", rules: "MAINPIDFD deny", sender: sender, fds: 1, payload: "MAINPID=7\nMAINPIDFD=1", want: "MAINPID=1007\nMAINPIDFDID=71007",
			decisions: []string{
				`MAINPIDFD denied "1": policy`, `MAINPID rewritten "1007": pid namespace`, `MAINPIDFDID added "71007"`,
				`datagram denied "": file descriptors nobody asked for`,
			},
		},
	})
}

func TestRELOADINGCarriesATimeOfTheHost(t *testing.T) {
	runFilterCases(t, []filterCase{
		{
			name: "translated", payload: "RELOADING=1\nMONOTONIC_USEC=805000", want: "RELOADING=1\nMONOTONIC_USEC=800000",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC rewritten "800000": time namespace`},
		},
		{
			name: "the host's own", sender: fakeSender{sameNames: true}, payload: "MONOTONIC_USEC=800000\nRELOADING=1", want: "RELOADING=1\nMONOTONIC_USEC=800000",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC forwarded "800000"`},
		},
		{
			name: "in the future", sender: fakeSender{sameNames: true}, payload: "RELOADING=1\nMONOTONIC_USEC=1000001", want: "RELOADING=1\nMONOTONIC_USEC=1000000",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC rewritten "1000000": time namespace`},
		},
		{
			name: "missing", payload: "RELOADING=1", want: "RELOADING=1\nMONOTONIC_USEC=1000000",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC added "1000000"`},
		},
		{
			name: "no number", payload: "RELOADING=1\nMONOTONIC_USEC=soon", want: "RELOADING=1\nMONOTONIC_USEC=1000000",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC denied "soon": invalid value`, `MONOTONIC_USEC added "1000000"`},
		},
		{
			name: "of an unknown clock", sender: fakeSender{noClock: true}, payload: "RELOADING=1\nMONOTONIC_USEC=805000", want: "RELOADING=1\nMONOTONIC_USEC=1000000",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC denied "805000": sender unidentified`, `MONOTONIC_USEC added "1000000"`},
		},
		{
			name: "denied", rules: "MONOTONIC_USEC deny", payload: "RELOADING=1\nMONOTONIC_USEC=805000", want: "RELOADING=1",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC denied "805000": policy`},
		},
		{name: "denied and missing", rules: "MONOTONIC_USEC deny", payload: "RELOADING=1", want: "RELOADING=1", decisions: []string{`RELOADING forwarded "1"`}},
		{name: "without RELOADING", payload: "MONOTONIC_USEC=805000", decisions: []string{`MONOTONIC_USEC denied "805000": not in this datagram`, nothingLeft}},
		{
			name: "RELOADING denied", rules: "RELOADING deny", payload: "RELOADING=1\nMONOTONIC_USEC=805000",
			decisions: []string{`RELOADING denied "1": policy`, `MONOTONIC_USEC denied "805000": not in this datagram`, nothingLeft},
		},
		{
			name: "both denied", rules: "RELOADING deny\nMONOTONIC_USEC deny", payload: "RELOADING=1\nMONOTONIC_USEC=805000",
			decisions: []string{`RELOADING denied "1": policy`, `MONOTONIC_USEC denied "805000": policy`, nothingLeft},
		},
	})
}

func TestSTOPPINGOfTheUnitAlone(t *testing.T) {
	runFilterCases(t, []filterCase{
		{name: "the unit stops", sender: fakeSender{stops: true}, payload: "STOPPING=1", want: "STOPPING=1", decisions: []string{`STOPPING forwarded "1"`}},
		{
			name: "somebody else stops", rules: `STATUS allow prefix="web: "`, payload: "STOPPING=1", want: "STATUS=web: Stopping",
			decisions: []string{`STOPPING rewritten "web: Stopping": the unit is not stopping`},
		},
		{
			name: "and says so", payload: "STOPPING=1\nSTATUS=Bye", want: "STATUS=Bye",
			decisions: []string{`STOPPING denied "1": the unit is not stopping`, `STATUS forwarded "Bye"`},
		},
		{
			name: "and may say nothing", rules: "STATUS deny", payload: "STOPPING=1",
			decisions: []string{`STOPPING denied "1": the unit is not stopping`, nothingLeft},
		},
		{name: "allowed", rules: "STOPPING allow", payload: "STOPPING=1", want: "STOPPING=1", decisions: []string{`STOPPING forwarded "1"`}},
		{name: "denied", rules: "STOPPING deny", sender: fakeSender{stops: true}, payload: "STOPPING=1", decisions: []string{`STOPPING denied "1": policy`, nothingLeft}},
	})
}

func TestNobodyIsAskedInVain(t *testing.T) {
	for _, tc := range []struct {
		rules, payload string
		fds            int
		want           string
	}{
		{payload: "READY=1\nSTATUS=x\nWATCHDOG=1\nMONOTONIC_USEC=1\nMAINPIDFDID=1"},
		{payload: "MAINPID=0\nREADY=1"},
		{payload: "MAINPIDFD=1\nMAINPID=1", fds: 2},
		{rules: "MAINPID deny\nSTOPPING deny\nRELOADING deny", payload: "MAINPID=1\nSTOPPING=1\nRELOADING=1\nMONOTONIC_USEC=1"},
		{rules: "STOPPING allow\nMONOTONIC_USEC deny", payload: "STOPPING=1\nRELOADING=1\nMONOTONIC_USEC=1"},
		{payload: "MAINPIDFD=1\nMAINPID=1\nRELOADING=1\nMONOTONIC_USEC=1\nSTOPPING=1", fds: 1, want: "mainPIDFD hostClock stopsUnit"},
	} {
		var s fakeSender
		newBench(mustPolicy(t, DefaultPolicy(), tc.rules)).send(tc.payload, tc.fds, &s)
		if got := strings.Join(s.asked, " "); got != tc.want {
			t.Errorf("%q: asked %q, want %q", tc.payload, got, tc.want)
		}
	}
}

func TestEXTEND_TIMEOUT_USECIsClamped(t *testing.T) {
	runFilterCases(t, []filterCase{
		{name: "below the limit", payload: "EXTEND_TIMEOUT_USEC=30000000", want: "EXTEND_TIMEOUT_USEC=30000000", decisions: []string{`EXTEND_TIMEOUT_USEC forwarded "30000000"`}},
		{name: "above the limit", payload: "EXTEND_TIMEOUT_USEC=999999999999", want: "EXTEND_TIMEOUT_USEC=120000000", decisions: []string{`EXTEND_TIMEOUT_USEC clamped "120000000": policy`}},
		{
			name: "above the budget", rules: "EXTEND_TIMEOUT_USEC clamp budget=1m", payload: "EXTEND_TIMEOUT_USEC=999999999999", want: "EXTEND_TIMEOUT_USEC=60000000",
			decisions: []string{`EXTEND_TIMEOUT_USEC clamped "60000000": quota`},
		},
		{name: "allowed", rules: "EXTEND_TIMEOUT_USEC allow", payload: "EXTEND_TIMEOUT_USEC=999999999999", want: "EXTEND_TIMEOUT_USEC=999999999999", decisions: []string{`EXTEND_TIMEOUT_USEC forwarded "999999999999"`}},
		{name: "zero", payload: "EXTEND_TIMEOUT_USEC=0", decisions: []string{`EXTEND_TIMEOUT_USEC denied "0": invalid value`, nothingLeft}},
		{name: "infinity", payload: "EXTEND_TIMEOUT_USEC=18446744073709551615", decisions: []string{`EXTEND_TIMEOUT_USEC denied "18446744073709551615": invalid value`, nothingLeft}},
		{name: "no number", payload: "EXTEND_TIMEOUT_USEC=5s", decisions: []string{`EXTEND_TIMEOUT_USEC denied "5s": invalid value`, nothingLeft}},
		{name: "denied", rules: "EXTEND_TIMEOUT_USEC deny", payload: "EXTEND_TIMEOUT_USEC=1", decisions: []string{`EXTEND_TIMEOUT_USEC denied "1": policy`, nothingLeft}},
	})
}

func TestADeadlineMovesNoFurtherThanTheBudgetOfItsPhase(t *testing.T) {
	b := newBench(mustPolicy(t, DefaultPolicy(), "EXTEND_TIMEOUT_USEC clamp max=2s budget=5s"))
	s := fakeSender{stops: true}
	for _, step := range []struct {
		second  uint64
		payload string
		want    string
	}{
		// Starting.
		{10, "EXTEND_TIMEOUT_USEC=9000000", "EXTEND_TIMEOUT_USEC=2000000"},
		{12, "EXTEND_TIMEOUT_USEC=1000000", "EXTEND_TIMEOUT_USEC=1000000"},
		{14, "EXTEND_TIMEOUT_USEC=9000000", "EXTEND_TIMEOUT_USEC=1000000"},
		{15, "EXTEND_TIMEOUT_USEC=9000000", ""},
		{15, "RELOADING=1\nMONOTONIC_USEC=6000\nEXTEND_TIMEOUT_USEC=9000000", "RELOADING=1\nMONOTONIC_USEC=1000"},
		// Running, from the datagram on that says so.
		{16, "EXTEND_TIMEOUT_USEC=9000000\nREADY=1", "READY=1\nEXTEND_TIMEOUT_USEC=2000000"},
		{20, "EXTEND_TIMEOUT_USEC=9000000", "EXTEND_TIMEOUT_USEC=1000000"},
		{21, "EXTEND_TIMEOUT_USEC=9000000", ""},
		{21, "READY=1\nEXTEND_TIMEOUT_USEC=9000000", "READY=1"},
		// Each reload has a timer of its own, what it interrupts goes on as it was.
		{22, "RELOADING=1\nMONOTONIC_USEC=6000\nEXTEND_TIMEOUT_USEC=9000000", "RELOADING=1\nMONOTONIC_USEC=1000\nEXTEND_TIMEOUT_USEC=2000000"},
		{27, "RELOADING=1\nMONOTONIC_USEC=6000\nEXTEND_TIMEOUT_USEC=9000000", "RELOADING=1\nMONOTONIC_USEC=1000"},
		{28, "READY=1\nEXTEND_TIMEOUT_USEC=9000000", "READY=1"},
		{29, "RELOADING=1\nMONOTONIC_USEC=6000\nREADY=1\nEXTEND_TIMEOUT_USEC=1", "READY=1\nRELOADING=1\nMONOTONIC_USEC=1000"},
		{30, "RELOADING=1\nMONOTONIC_USEC=6000\nEXTEND_TIMEOUT_USEC=1", "RELOADING=1\nMONOTONIC_USEC=1000\nEXTEND_TIMEOUT_USEC=1"},
		// Stopping, for good.
		{40, "STOPPING=1\nEXTEND_TIMEOUT_USEC=9000000", "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000"},
		{45, "READY=1\nEXTEND_TIMEOUT_USEC=9000000", "READY=1"},
	} {
		s.time = step.second * 1e6
		if got := b.send(step.payload, 0, &s); got != step.want {
			t.Errorf("at %d s, %q: %q, want %q", step.second, step.payload, got, step.want)
		}
	}
}

func TestWATCHDOG_USECUnderALimit(t *testing.T) {
	const clamp = "WATCHDOG_USEC clamp max=30s"
	runFilterCases(t, []filterCase{
		{name: "below", rules: clamp, payload: "WATCHDOG_USEC=1000000", want: "WATCHDOG_USEC=1000000", decisions: []string{`WATCHDOG_USEC forwarded "1000000"`}},
		{name: "above", rules: clamp, payload: "WATCHDOG_USEC=60000000", want: "WATCHDOG_USEC=30000000", decisions: []string{`WATCHDOG_USEC clamped "30000000": policy`}},
		{name: "not turned off", rules: clamp, payload: "WATCHDOG_USEC=0", decisions: []string{`WATCHDOG_USEC denied "0": invalid value`, nothingLeft}},
		{name: "nor by infinity", rules: clamp, payload: "WATCHDOG_USEC=18446744073709551615", decisions: []string{`WATCHDOG_USEC denied "18446744073709551615": invalid value`, nothingLeft}},
		{name: "no number", rules: clamp, payload: "WATCHDOG_USEC=infinity", decisions: []string{`WATCHDOG_USEC denied "infinity": invalid value`, nothingLeft}},
		{name: "allowed", rules: "WATCHDOG_USEC allow", payload: "WATCHDOG_USEC=0", want: "WATCHDOG_USEC=0", decisions: []string{`WATCHDOG_USEC forwarded "0"`}},
		{name: "denied", payload: "WATCHDOG_USEC=1000000", decisions: []string{`WATCHDOG_USEC denied "1000000": policy`, nothingLeft}},
	})
}

func TestTheStoreOfFileDescriptors(t *testing.T) {
	const (
		allow  = "FDSTORE allow\nFDSTOREREMOVE allow\n"
		prefix = allow + "FDNAME allow prefix=web-\n"
	)
	long := strings.Repeat("n", maxName)
	runFilterCases(t, []filterCase{
		{
			name: "store", rules: allow, fds: 2, payload: "FDSTORE=1\nFDNAME=a b\nFDPOLL=0", want: "FDSTORE=1\nFDPOLL=0\nFDNAME=a b",
			decisions: []string{`FDSTORE forwarded "1"`, `FDPOLL forwarded "0"`, `FDNAME forwarded "a b"`},
		},
		{name: "without a name", rules: allow, fds: 1, payload: "FDSTORE=1", want: "FDSTORE=1", decisions: []string{`FDSTORE forwarded "1"`}},
		{
			name: "with a prefix", rules: prefix, fds: 1, payload: "FDSTORE=1\nFDNAME=a", want: "FDSTORE=1\nFDNAME=web-a",
			decisions: []string{`FDSTORE forwarded "1"`, `FDNAME rewritten "web-a": prefix`},
		},
		{
			name: "with a prefix and no name", rules: prefix, fds: 1, payload: "FDSTORE=1", want: "FDSTORE=1\nFDNAME=web-stored",
			decisions: []string{`FDSTORE forwarded "1"`, `FDNAME added "web-stored": prefix`},
		},
		{
			name: "the longest name", rules: allow, fds: 1, payload: "FDSTORE=1\nFDNAME=" + long, want: "FDSTORE=1\nFDNAME=" + long,
			decisions: []string{`FDSTORE forwarded "1"`, fmt.Sprintf(`FDNAME forwarded %q`, long)},
		},
		{
			name: "too long with the prefix", rules: prefix, fds: 1, payload: "FDSTORE=1\nFDNAME=" + long, decisions: []string{
				fmt.Sprintf(`FDNAME denied %q: invalid value`, long), `FDSTORE denied "1": invalid value`,
				`datagram denied "": file descriptors nobody asked for`, nothingLeft,
			},
		},
		{
			name: "not a name", rules: allow, fds: 1, payload: "FDSTORE=1\nFDNAME=a:b\nFDPOLL=0\nREADY=1", want: "READY=1", decisions: []string{
				`READY forwarded "1"`, `FDNAME denied "a:b": invalid value`, `FDPOLL denied "0": invalid value`, `FDSTORE denied "1": invalid value`,
				`datagram denied "": file descriptors nobody asked for`,
			},
		},
		{
			name: "no file descriptor", rules: allow, payload: "FDSTORE=1\nFDNAME=a",
			decisions: []string{`FDNAME denied "a": wrong number of file descriptors`, `FDSTORE denied "1": wrong number of file descriptors`, nothingLeft},
		},
		{
			name: "denied", fds: 1, payload: "FDSTORE=1\nFDNAME=a\nFDPOLL=0\nREADY=1", want: "READY=1", decisions: []string{
				`READY forwarded "1"`, `FDSTORE denied "1": policy`, `FDNAME denied "a": not in this datagram`, `FDPOLL denied "0": not in this datagram`,
				`datagram denied "": file descriptors nobody asked for`,
			},
		},
		{
			name: "names denied", rules: allow + "FDNAME deny\nFDPOLL deny", fds: 1, payload: "FDSTORE=1\nFDNAME=a\nFDPOLL=0", want: "FDSTORE=1",
			decisions: []string{`FDNAME denied "a": policy`, `FDPOLL denied "0": policy`, `FDSTORE forwarded "1"`},
		},
		{
			name: "names alone", rules: allow, fds: 1, payload: "FDNAME=a\nFDPOLL=0", decisions: []string{
				`FDNAME denied "a": not in this datagram`, `FDPOLL denied "0": not in this datagram`,
				`datagram denied "": file descriptors nobody asked for`, nothingLeft,
			},
		},
		{
			name: "remove", rules: prefix, payload: "FDSTOREREMOVE=1\nFDNAME=a", want: "FDSTOREREMOVE=1\nFDNAME=web-a",
			decisions: []string{`FDSTOREREMOVE forwarded "1"`, `FDNAME rewritten "web-a": prefix`},
		},
		{
			name: "remove without a name", rules: prefix, payload: "FDSTOREREMOVE=1",
			decisions: []string{`FDSTOREREMOVE denied "1": not in this datagram`, nothingLeft},
		},
		{
			name: "remove with a name that is denied", rules: allow + "FDNAME deny", payload: "FDSTOREREMOVE=1\nFDNAME=a",
			decisions: []string{`FDNAME denied "a": policy`, `FDSTOREREMOVE denied "1": not in this datagram`, nothingLeft},
		},
		{
			name: "remove has precedence", rules: allow, fds: 1, payload: "FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=a", want: "FDSTOREREMOVE=1\nFDNAME=a", decisions: []string{
				`FDSTORE denied "1": not the first`, `FDSTOREREMOVE forwarded "1"`, `FDNAME forwarded "a"`,
				`datagram denied "": file descriptors nobody asked for`,
			},
		},
		{
			name: "also where it is denied", rules: "FDSTORE allow", fds: 1, payload: "FDSTORE=1\nFDSTOREREMOVE=1", decisions: []string{
				`FDSTORE denied "1": not the first`, `FDSTOREREMOVE denied "1": policy`,
				`datagram denied "": file descriptors nobody asked for`, nothingLeft,
			},
		},
	})
}

func TestABarrierIsLeftToTheCaller(t *testing.T) {
	for _, tc := range []struct {
		name, rules, payload string
		fds                  int
		barrier              bool
		decisions            []string
	}{
		{name: "good", payload: "BARRIER=1", fds: 1, barrier: true},
		{name: "with a newline", payload: "\nBARRIER=1\n\x00", fds: 1, barrier: true},
		{name: "without a file descriptor", payload: "BARRIER=1", decisions: []string{`BARRIER denied "": wrong number of file descriptors`}},
		{name: "with two", payload: "BARRIER=1", fds: 2, decisions: []string{`BARRIER denied "": wrong number of file descriptors`}},
		{name: "denied", rules: "BARRIER deny", payload: "BARRIER=1", fds: 1, decisions: []string{`BARRIER denied "": policy`}},
		{name: "another value", payload: "BARRIER=2", decisions: []string{`BARRIER denied "2": invalid value`, nothingLeft}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(mustPolicy(t, DefaultPolicy(), tc.rules))
			j := b.judge([]byte(tc.payload), tc.fds, &fakeSender{})
			if want := (judgement{barrier: tc.barrier}); j != want {
				t.Errorf("%+v, want %+v", j, want)
			}
			if diff := cmp.Diff(tc.decisions, b.lines); diff != "" {
				t.Errorf("decisions: - want, + got\n%s", diff)
			}
		})
	}
}

func TestFileDescriptorsGoWithTheAssignmentThatTakesThem(t *testing.T) {
	b := newBench(mustPolicy(t, DefaultPolicy(), allowAll))
	for _, tc := range []struct {
		payload          string
		fds              int
		storeFDs, mainFD bool
	}{
		{payload: "FDSTORE=1", fds: 3, storeFDs: true},
		{payload: "MAINPIDFD=1", fds: 1, mainFD: true},
		{payload: "MAINPID=1", fds: 1},
		{payload: "FDSTOREREMOVE=1\nFDNAME=a", fds: 1},
		{payload: "READY=1"},
	} {
		j := b.judge([]byte(tc.payload), tc.fds, &fakeSender{})
		if j.msg == nil || j.barrier || j.storeFDs != tc.storeFDs || j.mainFD != tc.mainFD {
			t.Errorf("%q: %+v", tc.payload, j)
		}
	}
}

func TestSTATUSIsTextOfOneLine(t *testing.T) {
	x := strings.Repeat("x", events.MaxPayload-len("STATUS="))
	runFilterCases(t, []filterCase{
		{name: "as it is", payload: "STATUS=Grüße, 世界", want: "STATUS=Grüße, 世界", decisions: []string{`STATUS forwarded "Grüße, 世界"`}},
		{name: "empty clears", rules: `STATUS allow prefix="web: "`, payload: "STATUS=", want: "STATUS=", decisions: []string{`STATUS forwarded ""`}},
		{name: "control characters", payload: "STATUS=a\tb\x1b[31m\x7f\u0085c", want: "STATUS=a b [31m  c", decisions: []string{`STATUS rewritten "a b [31m  c": not text`}},
		{name: "not UTF-8", payload: "STATUS=a\xffb", want: "STATUS=a\ufffdb", decisions: []string{"STATUS rewritten \"a\ufffdb\": not text"}},
		{name: "noncharacters", payload: "STATUS=a\uffffb", want: "STATUS=a\ufffdb", decisions: []string{"STATUS rewritten \"a\ufffdb\": not text"}},
		{name: "prefix", rules: `STATUS allow prefix="web: "`, payload: "STATUS=Serving", want: "STATUS=web: Serving", decisions: []string{`STATUS rewritten "web: Serving": prefix`}},
		{name: "prefix with backslash", rules: `STATUS allow prefix="web\\ "`, payload: "STATUS=Serving", want: `STATUS=web\\ Serving`, decisions: []string{`STATUS rewritten "web\\ Serving": prefix`}},
		{name: "the longest", rules: "STATUS allow max-bytes=5", payload: "STATUS=12345", want: "STATUS=12345", decisions: []string{`STATUS forwarded "12345"`}},
		{name: "longer", rules: `STATUS allow max-bytes=5 prefix="p "`, payload: "STATUS=1234ü", want: "STATUS=p 1234", decisions: []string{`STATUS rewritten "p 1234": cut to fit`}},
		{name: "the longest datagram", payload: "STATUS=" + x, want: "STATUS=" + x, decisions: []string{fmt.Sprintf(`STATUS forwarded %q`, x)}},
		{
			name: "longer with the prefix", rules: "STATUS allow prefix=p", payload: "STATUS=" + x, want: "STATUS=p" + x[1:],
			decisions: []string{fmt.Sprintf(`STATUS rewritten %q: cut to fit`, "p"+x[1:])},
		},
		{name: "denied", rules: "STATUS deny", payload: "STATUS=x", decisions: []string{`STATUS denied "x": policy`, nothingLeft}},
	})
}

func TestPrivateLines(t *testing.T) {
	long := "X_LONG=" + strings.Repeat("x", events.MaxPayload-len("X_LONG=\nRELOADING=1"))
	const allow = "X_* allow"
	runFilterCases(t, []filterCase{
		{
			name: "all of them, in order", rules: allow, payload: "X_B=1\nREADY=1\nX_A=\nX_B=1", want: "READY=1\nX_B=1\nX_A=\nX_B=1",
			decisions: []string{`READY forwarded "1"`, `X_* forwarded "X_B=1"`, `X_* forwarded "X_A="`, `X_* forwarded "X_B=1"`},
		},
		{
			name: "as text", rules: allow, payload: "X_A=1\\\nREADY=1\nX_B=\\\\\xff", want: "X_A=1 READY=1\nX_B=\\\\\ufffd",
			decisions: []string{`X_* rewritten "X_A=1 READY=1": not text`, "X_* rewritten \"X_B=\\\\\ufffd\": not text"},
		},
		{
			name: "with names like keys", rules: allow, payload: "X_=1\nX_a=2\nX_A B=3\nX_A\\\n=4\nX_9=5\nX_A", want: "X_9=5", decisions: []string{
				`unknown denied "X_A": unknown key`, `X_* denied "X_=1": invalid value`, `X_* denied "X_a=2": invalid value`,
				`X_* denied "X_A B=3": invalid value`, `X_* denied "X_A\n=4": invalid value`, `X_* forwarded "X_9=5"`,
			},
		},
		{
			name: "left out where there is no room", rules: allow, payload: long + "\nRELOADING=1", want: "RELOADING=1\nMONOTONIC_USEC=1000000",
			decisions: []string{`RELOADING forwarded "1"`, `MONOTONIC_USEC added "1000000"`, fmt.Sprintf(`X_* denied %q: cut to fit`, long)},
		},
		{name: "none but wrong ones", rules: allow, payload: "X_a=1", decisions: []string{`X_* denied "X_a=1": invalid value`, nothingLeft}},
		{name: "denied", payload: "X_A=1\nX_B=2", decisions: []string{`X_* denied "X_A=1": policy`, `X_* denied "X_B=2": policy`, nothingLeft}},
	})
}

func TestADatagramLeavesNothingBehindForTheNext(t *testing.T) {
	const everything = "MAINPID=7\nREADY=1\nRELOADING=1\nMONOTONIC_USEC=9000\nSTOPPING=1\nWATCHDOG=1\nWATCHDOG_USEC=7\nEXTEND_TIMEOUT_USEC=7\n" +
		"RESTART_RESET=1\nFDSTORE=1\nFDNAME=a\nFDPOLL=0\nNOTIFYACCESS=all\nERRNO=5\nEXIT_STATUS=1\nBUSERROR=b\nVARLINKERROR=v\nSTATUS=s\nX_A=1"
	b := newBench(mustPolicy(t, DefaultPolicy(), allowAll))
	first := b.send(everything, 1, &fakeSender{})
	if got, want := len(strings.Split(first, "\n")), 20; got != want {
		t.Errorf("%d lines of %d: %q", got, want, first)
	}
	for _, tc := range []struct{ payload, want string }{
		{"READY=1", "READY=1"},
		{"RELOADING=1", "RELOADING=1\nMONOTONIC_USEC=1000000"},
		{"FOO=1", ""},
		{"X_B=2", "X_B=2"},
	} {
		if got := b.send(tc.payload, 0, &fakeSender{}); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.payload, got, tc.want)
		}
	}
	if again := b.send(everything, 1, &fakeSender{}); again != first {
		t.Errorf("first %q, again %q", first, again)
	}
}

func TestEveryDecisionIsCounted(t *testing.T) {
	b := newBench(DefaultPolicy())
	b.send("READY=1\nFOO=1\nFOO=2", 0, &fakeSender{})
	b.send("", 0, &fakeSender{})
	want := []Count{
		{KeyReady, Forwarded, ReasonNone, 1},
		{KeyUnknown, Denied, ReasonUnknownKey, 2},
		{KeyNone, Denied, ReasonEmpty, 1},
	}
	if diff := cmp.Diff(want, b.counters.counts()); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
}

// typical are datagrams as services send them.
var typical = []struct {
	name, payload string
	fds           int
}{
	{"ready", "READY=1\nSTATUS=Serving requests on port 8080\nMAINPID=7", 0},
	{"watchdog", "WATCHDOG=1", 0},
	{"status", "STATUS=Processed 1234567 of 9876543 requests, Größe 17 MiB\n", 0},
	{"dirty status", "STATUS=\x1b[31mred\x1b[0m \xff\\\\", 0},
	{"reload", "RELOADING=1\nMONOTONIC_USEC=805000", 0},
	{"extend", "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=Migrating", 0},
	{"pidfd", "MAINPIDFD=1\nREADY=1", 1},
	{"store", "FDSTORE=1\nFDNAME=listener\nFDPOLL=0", 2},
	{"failure", "STOPPING=1\nERRNO=ENOENT\nEXIT_STATUS=1\nBUSERROR=org.example.Broken", 0},
	{"private", "X_SYSTEMD_UNIT_ACTIVE=basic.target\nX_OTHER=2", 0},
	{"barrier", "BARRIER=1", 1},
	{"nonsense", "FOO=bar\nREADY=0\nMAINPID=x", 0},
	{"refused", "READY=1\\", 0},
}

// quietSender is a fakeSender that keeps no account.
type quietSender struct{ fakeSender }

func (s *quietSender) mainPID(pid uint64) (int, uint64, Reason) { return s.found(pid) }
func (s *quietSender) mainPIDFD() (int, uint64, Reason)         { return s.found(9) }
func (s *quietSender) hostClock(usec uint64) (uint64, bool)     { return usec - 5000, true }
func (s *quietSender) stopsUnit() bool                          { return false }
func (s *quietSender) reloadsUnit() bool                        { return true }
func (s *quietSender) readiesUnit() bool                        { return true }

func TestADatagramCostsNoAllocation(t *testing.T) {
	p := mustPolicy(t, DefaultPolicy(), allowAll)
	f := newFilter(&p, &unitPhase{})
	var total counters
	var out []byte
	n := 0
	callback := func(d Decision) { n += len(d.Value) }
	for _, tc := range typical {
		payload, s := []byte(tc.payload), &quietSender{}
		allocs := testing.AllocsPerRun(100, func() {
			rec := recorder{counters: &total, callback: callback}
			if j := f.judge(payload, tc.fds, s, &rec); j.msg != nil {
				out = j.msg.append(out[:0])
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %g allocations", tc.name, allocs)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	p := mustPolicy(b, DefaultPolicy(), allowAll)
	f := newFilter(&p, &unitPhase{})
	var total counters
	var out []byte
	for _, tc := range typical {
		b.Run(tc.name, func(b *testing.B) {
			payload, s := []byte(tc.payload), &quietSender{}
			b.ReportAllocs()
			for b.Loop() {
				rec := recorder{counters: &total}
				if j := f.judge(payload, tc.fds, s, &rec); j.msg != nil {
					out = j.msg.append(out[:0])
				}
			}
		})
	}
}
