// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conformance_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/conformance"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// application is the first argument of this binary when it is one, which does what the others say in turn.
const application = "application"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == application {
		play(os.Args[2:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func say(text string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	text = strings.ReplaceAll(text, "NOW", fmt.Sprint(proc.Monotonic().Microseconds()))
	if _, err := conn.Write([]byte(strings.ReplaceAll(text, "+", "\n"))); err != nil {
		panic(err)
	}
}

// play does one thing after the other: "hup:A;B" says A and B for each SIGHUP from then on, "term:A" says A and ends for
// SIGTERM, "deaf" does not end, "ping" goes on pinging, "child:A" has a child say A, "live" goes on.
func play(steps []string) {
	for _, step := range steps {
		what, text, _ := strings.Cut(step, ":")
		signals := make(chan os.Signal, 1)
		switch what {
		case "say":
			say(text)
		case "hup":
			signal.Notify(signals, unix.SIGHUP)
			go func() {
				for range signals {
					for part := range strings.SplitSeq(text, ";") {
						say(part)
					}
				}
			}()
		case "term":
			signal.Notify(signals, unix.SIGTERM)
			go func() { <-signals; say(text); os.Exit(0) }()
		case "deaf":
			signal.Ignore(unix.SIGTERM)
		case "child":
			child, err := os.StartProcess("/proc/self/exe", []string{"child", application, "say:" + text}, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, nil, os.Stderr}})
			if err != nil {
				panic(err)
			}
			if _, err := child.Wait(); err != nil {
				panic(err)
			}
		case "ping":
			for {
				await.Pass(time.Second / 10)
				say("WATCHDOG=1")
			}
		case "live":
			for {
				_ = unix.Pause() // which a signal ends
			}
		}
	}
}

// few is how long is waited for what does not come, and long enough for what does.
const few = 5 * time.Second

// tried runs an application with options.
func tried(t *testing.T, options conformance.Options, steps ...string) *conformance.Report {
	t.Helper()
	options.Program, options.Args, options.Env = "/proc/self/exe", append([]string{"app", application}, steps...), os.Environ()
	if options.Within == 0 {
		options.Within = await.Patience
	}
	if options.Access == "" {
		options.Access = "main"
	}
	if options.Expect == nil {
		options.Expect = []events.Assignment{{Key: "READY", Value: "1"}}
	}
	report, err := conformance.Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// outcome is a report as words: a point a word, then what is wrong with each.
func outcome(r *conformance.Report) (words []string, details string) {
	for _, p := range r.Points {
		switch {
		case p.Skipped:
			words = append(words, "skipped")
		case p.OK:
			words = append(words, "ok")
		default:
			words = append(words, "failed")
		}
		details += strings.Join(p.Details, "\n") + "\n"
	}
	return words, details
}

func check(t *testing.T, r *conformance.Report, want []string, says ...string) {
	t.Helper()
	got, details := outcome(r)
	if !slices.Equal(got, want) {
		t.Errorf("it is %v, want %v: %s", got, want, details)
	}
	for _, word := range says {
		if !strings.Contains(details, word) {
			t.Errorf("it does not say %q: %s", word, details)
		}
	}
	if r.OK() != !slices.Contains(want, "failed") {
		t.Errorf("as a whole it is %v", r.OK())
	}
}

func TestAnApplicationThatSpeaksRight(t *testing.T) {
	t.Parallel()
	r := tried(t, conformance.Options{Reload: unix.SIGHUP, Watchdog: 10 * time.Second, Intervals: 1},
		"hup:RELOADING=1+MONOTONIC_USEC=NOW;READY=1", "term:STOPPING=1", "say:STATUS=Up", "say:READY=1", "ping", "live")
	check(t, r, []string{"ok", "ok", "ok", "ok", "ok", "ok"}, "pings")
	if len(r.Notes) > 0 {
		t.Errorf("noted: %q", r.Notes)
	}
}

func TestWhatIsExpectedHasToComeInOrder(t *testing.T) {
	t.Parallel()
	expect := []events.Assignment{{Key: "STATUS", Value: "*ed"}, {Key: "READY", Value: "1"}}
	check(t, tried(t, conformance.Options{Expect: expect}, "say:STATUS=Loading", "say:STATUS=Loaded+READY=1", "live"), []string{"ok", "ok", "ok", "ok"})
	check(t, tried(t, conformance.Options{Expect: expect}, "say:READY=1", "say:STATUS=Loaded"), []string{"ok", "failed", "skipped", "ok"},
		"it has ended, with status 0")
}

func TestAnApplicationThatSaysNothing(t *testing.T) {
	t.Parallel()
	check(t, tried(t, conformance.Options{Within: few}, "live"), []string{"failed", "ok", "skipped"}, "not in time", "it has said nothing")
	check(t, tried(t, conformance.Options{}), []string{"failed", "skipped", "skipped"}, "it has ended, with status 0")
}

func TestWhatSystemdDoesNotHeed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps []string
		want  []string
		says  string
	}{
		"a spelling": {[]string{"say:READY=true", "say:READY=1", "live"}, []string{"ok", "ok", "failed"}, "READY=true: has no effect by systemd 247 to 262"},
		"a child":    {[]string{"child:READY=1", "live"}, []string{"failed", "ok", "failed"}, "NotifyAccess=main takes"},
		"a main process that is not there": {
			[]string{"say:MAINPID=2147483646+READY=1", "live"}, []string{"ok", "ok", "failed"}, "there is no such process",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, tried(t, conformance.Options{}, c.steps...), c.want, c.says)
		})
	}
}

func TestAReloadThatIsNotAnsweredRight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer, says string
		want         []string
	}{
		"untimed":     {"RELOADING=1;READY=1", "without MONOTONIC_USEC=", []string{"ok", "failed", "ok", "ok", "failed"}},
		"apart":       {"RELOADING=1;MONOTONIC_USEC=NOW;READY=1", "without MONOTONIC_USEC=", []string{"ok", "failed", "ok", "ok", "failed"}},
		"wrong clock": {"RELOADING=1+MONOTONIC_USEC=1764000000000000;READY=1", "is in the future", []string{"ok", "failed", "ok", "ok", "ok"}},
		"too early":   {"RELOADING=1+MONOTONIC_USEC=1;READY=1", "is before the signal", []string{"ok", "failed", "ok", "ok", "failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, tried(t, conformance.Options{Reload: unix.SIGHUP}, "hup:"+c.answer, "say:READY=1", "live"), c.want, c.says)
		})
	}
}

func TestAHandlerThatComesAfterReadyIsTooLateSince262(t *testing.T) {
	t.Parallel()
	signal.Ignore(unix.SIGHUP) // as nohup(1) does; the application has it at its default all the same
	// The runtime of Go handles SIGHUP: perl does not.
	options := conformance.Options{Program: "perl", Reload: unix.SIGHUP, Within: few, Access: "main", Env: os.Environ(), Expect: []events.Assignment{{Key: "READY", Value: "1"}}}
	options.Args = []string{"perl", "-e", `use Socket; socket(my $s, AF_UNIX, SOCK_DGRAM, 0); send($s, "READY=1", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})); sleep 1 while 1`}
	program, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("not declared: there is no perl")
	}
	options.Program = program
	r, err := conformance.Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, []string{"ok", "failed", "failed", "skipped", "failed"}, "READY=1: ignored by systemd 262: the main process neither handles nor blocks ReloadSignal=")
}

func TestAnApplicationThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	check(t, tried(t, conformance.Options{Within: few}, "deaf", "say:READY=1", "live"), []string{"ok", "failed", "ok"}, "not in time")
}

func TestPingsThatDoNotCome(t *testing.T) {
	t.Parallel()
	check(t, tried(t, conformance.Options{Watchdog: time.Second / 2, Intervals: 1}, "say:READY=1", "live"), []string{"ok", "failed", "ok", "ok"}, "no ping for 500ms")
}

func TestTheReportIsWhatReadersOfItsFormTake(t *testing.T) {
	t.Parallel()
	r := &conformance.Report{
		Points: []conformance.Point{
			{Name: "says READY=1 within 1s", OK: true, Took: 20 * time.Millisecond},
			{Name: "ends", Details: []string{"not <in> time", "\x1b[31m"}},
			{Name: "all", Skipped: true},
		},
		Notes: []string{"pings come late"},
	}
	var text, tap, junit bytes.Buffer
	for _, err := range []error{r.WriteText(&text), r.WriteTAP(&tap), r.WriteJUnit(&junit, "app")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := "ok    says READY=1 within 1s (20ms)\nFAIL  ends\n      not <in> time\n      \\x1b[31m\nskip  all\nnote  pings come late\n"; text.String() != want {
		t.Errorf("text: %q", text.String())
	}
	if want := "TAP version 13\n1..3\nok 1 - says READY=1 within 1s\nnot ok 2 - ends\n# not <in> time\n# \\x1b[31m\nok 3 - all # SKIP\n# note: pings come late\n"; tap.String() != want {
		t.Errorf("TAP: %q", tap.String())
	}
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(junit.Bytes(), &suite); err != nil {
		t.Fatal(err)
	}
	if suite.Tests != 3 || suite.Failures != 1 || len(suite.Cases) != 3 || suite.Cases[1].Failure == nil || suite.Cases[1].Failure.Message != `not <in> time; \x1b[31m` {
		t.Errorf("JUnit: %s", junit.String())
	}
}
