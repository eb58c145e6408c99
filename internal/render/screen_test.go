// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// screenOf is a screen of so many columns.
func screenOf(width int) *render.Screen {
	return &render.Screen{
		Text:  render.Text{Clock: &render.Clock{Zone: time.UTC, Millis: true}},
		Width: func() int { return width },
	}
}

// said is a datagram of a unit that says something, some time after the first.
func said(unit, message string, after time.Duration) *events.Event {
	e := eventtest.Plain(message)
	e.Time = eventtest.Time.Add(after)
	e.Sender.Unit = unit
	e.Socket = events.Socket{Address: "/run/systemd/notify"}
	e.Receiver = &events.Receiver{PID: 1, Comm: "systemd"}
	e.Result = events.Result{Delivered: eventtest.Ptr(true)}
	return e
}

// show is what a screen shows of datagrams, without the header.
func show(s *render.Screen, sent ...*events.Event) string {
	var b []byte
	for _, e := range sent {
		b = s.AppendJudged(b, &events.Record{Event: e}, nil)
	}
	return withoutHeader(string(s.AppendRest(b)))
}

func withoutHeader(shown string) string {
	_, rest, _ := strings.Cut(shown, "\n")
	return rest
}

func TestALineFitsTheTerminal(t *testing.T) {
	long := "READY=1\nSTATUS=" + strings.Repeat("many words and 日本語 ", 20) + "\nMAINPID=123"
	for _, test := range []struct {
		name  string
		width int
		event func(e *events.Event)
		want  string
	}{
		{
			"the longest assignment is cut, the others are whole", 80, func(e *events.Event) {},
			"16:01:46.123 web.service nginx[812] queued READY=1 STATUS=\"many wor… MAINPID=123\n",
		},
		{
			"more of it in more columns", 120, func(e *events.Event) {},
			"16:01:46.123 web.service nginx[812] queued READY=1 STATUS=\"many words and 日本語 many words and 日本語 many… MAINPID=123\n",
		},
		{
			"where it failed stands below", 80, func(e *events.Event) {
				e.Socket.Address, e.Result = "/run/elsewhere/notify", events.Result{Errno: "ENOENT"}
			},
			"16:01:46.123 web.service nginx[812] FAILED ENOENT READY=1 STATUS=\"m… MAINPID=123\n" +
				"              -> /run/elsewhere/notify systemd[1]\n",
		},
		{
			"a unit's beginning and end, a process's number", 80, func(e *events.Event) {
				e.Sender.Unit, e.Sender.Comm, e.Payload = "a-very-long-name-of-a-unit.service", "a-long-name", []byte("READY=1")
			},
			"16:01:46.123 a-very-long-n…a-unit a-long-name[812] queued READY=1\n",
		},
		{
			"of a control group the last name", 80, func(e *events.Event) {
				e.Sender.Unit, e.Sender.Cgroup, e.Payload = "", "/some/where/far/below", []byte("READY=1")
			},
			"16:01:46.123 …/below nginx[812] queued READY=1\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := said("web.service", long, 0)
			e.Sender.PID = 812
			e.Sender.Comm = "nginx"
			test.event(e)

			if diff := cmp.Diff(test.want, show(screenOf(test.width), e)); diff != "" {
				t.Errorf("(-want +shown):\n%s", diff)
			}
		})
	}
}

func TestTheWidthIsAskedForWithEachLine(t *testing.T) {
	width := 60
	s := screenOf(0)
	s.Width = func() int { return width }
	var b []byte
	for _, w := range []int{60, 200, 45} {
		width = w
		b = s.AppendJudged(b, &events.Record{Event: said("web.service", "STATUS="+strings.Repeat("x", w+100), time.Hour*time.Duration(w))}, nil)
	}
	var widths []int
	for line := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
		if strings.Contains(line, "STATUS=") {
			widths = append(widths, ansi.StringWidthWc(line))
		}
	}
	if diff := cmp.Diff([]int{60, 200, 45}, widths); diff != "" {
		t.Errorf("widths of the lines (-want +shown):\n%s", diff)
	}
}

func TestReasonsAreShownWhole(t *testing.T) {
	reason := "counts as from python3[86], which is not the main process [85], NotifyAccess=main"
	e := said("web.service", "READY=1\nSTATUS="+strings.Repeat("x", 200), 0)
	v := &events.Verdict{Send: e}
	for _, a := range []events.Assignment{{Key: "READY", Value: "1"}, {Key: "STATUS", Value: "x"}} {
		v.Lines = append(v.Lines, events.LineVerdict{Assignment: a, Outcome: events.Ignored, Reason: reason, Cure: "set NotifyAccess=all"})
	}
	for _, width := range []int{40, 80, 100, 300} {
		shown := string(screenOf(width).AppendJudged(nil, &events.Record{Event: e}, v))
		if words := strings.Join(strings.Fields(shown), " "); !strings.Contains(words, "IGNORED: "+reason+"; set NotifyAccess=all") {
			t.Errorf("%d columns: not whole:\n%s", width, shown)
		}
	}
}

func TestWhatAUnitSaysAgainAndAgainIsCounted(t *testing.T) {
	every := func(step time.Duration, n int, message string) (sent []*events.Event) {
		for i := range n {
			sent = append(sent, said("web.service", message, time.Duration(i)*step))
		}
		return sent
	}
	for _, test := range []struct {
		name string
		sent []*events.Event
		want []string // of each line behind the process
	}{
		{
			"pings from the second on, and the longest gap",
			append(every(time.Second, 10, "WATCHDOG=1"), said("web.service", "WATCHDOG=1", 15*time.Second)),
			[]string{"queued WATCHDOG=1", "10 × WATCHDOG=1 in 15s, gaps ≤ 6s"},
		},
		{
			"a count every minute, then more rarely",
			every(10*time.Second, 6*15, "WATCHDOG=1\nSTATUS=Serving"),
			[]string{
				"queued WATCHDOG=1 STATUS=Serving", "6 × WATCHDOG=1 STATUS=Serving in 1m0s, gaps ≤ 10s",
				"12 × WATCHDOG=1 STATUS=Serving in 2m0s, gaps ≤ 10s", "24 × WATCHDOG=1 STATUS=Serving in 4m0s, gaps ≤ 10s",
				"47 × WATCHDOG=1 STATUS=Serving in 7m50s, gaps ≤ 10s",
			},
		},
		{
			"other messages from the fourth on", every(10*time.Second, 6, "READY=1"),
			[]string{"queued READY=1", "queued READY=1", "queued READY=1", "3 × READY=1 in 30s, gaps ≤ 10s"},
		},
		{
			"not those that are seldom", every(2*time.Minute, 5, "READY=1"),
			[]string{"queued READY=1", "queued READY=1", "queued READY=1", "queued READY=1", "queued READY=1"},
		},
		{
			"before the unit says something else",
			append(every(time.Second, 5, "WATCHDOG=1"), said("web.service", "STOPPING=1", 5*time.Second)),
			[]string{"queued WATCHDOG=1", "4 × WATCHDOG=1 in 4s, gaps ≤ 1s", "queued STOPPING=1"},
		},
		{
			"other values are something else",
			[]*events.Event{said("web.service", "READY=1", 0), said("web.service", "READY=true", 1), said("web.service", "READY=yes", 2), said("web.service", "READY=on", 3)},
			[]string{"queued READY=1", "queued READY=true", "queued READY=yes", "queued READY=on"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for line := range strings.SplitSeq(strings.TrimSpace(show(screenOf(200), test.sent...)), "\n") {
				_, behind, _ := strings.Cut(line, "] ")
				got = append(got, strings.TrimSpace(behind))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +shown):\n%s", diff)
			}
		})
	}
}

func TestACountSaysWhatWentWrong(t *testing.T) {
	s := screenOf(100)
	var b []byte
	for i := range 5 {
		e := said("web.service", "READY=1", time.Duration(i)*time.Second)
		e.Sender.PID += uint32(i)
		v := &events.Verdict{Send: e, Lines: []events.LineVerdict{{
			Assignment: events.Assignment{Key: "READY", Value: "1"}, Outcome: events.Ignored, Rule: "D7", Reason: "from another process each time",
		}}}
		b = s.AppendJudged(b, &events.Record{Event: e}, v)
	}
	if shown := string(s.AppendRest(b)); !strings.Contains(shown, "2 × READY=1 IGNORED in 2s, gaps ≤ 1s, from 2 processes\n") {
		t.Errorf("shown:\n%s", shown)
	}
}

func TestACountThatIsDueNeedsNoOtherMessage(t *testing.T) {
	s := screenOf(100)
	for i := range 4 {
		s.AppendJudged(nil, &events.Record{Event: said("web.service", "WATCHDOG=1", time.Duration(i)*time.Second)}, nil)
	}
	if early := s.AppendDue(nil, eventtest.Time.Add(time.Minute)); len(early) > 0 {
		t.Errorf("within a minute of the first that was counted: %s", early)
	}
	if due := string(s.AppendDue(nil, eventtest.Time.Add(61*time.Second))); !strings.Contains(due, "3 × WATCHDOG=1") {
		t.Errorf("after a minute: %q", due)
	}
	if rest := s.AppendRest(nil); len(rest) > 0 {
		t.Errorf("counted twice: %s", rest)
	}
}

func TestTheDateStandsInAHeaderAndAtMidnight(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	s := screenOf(100)
	s.Text.Clock.Zone = zone
	s.Host = "box\x1b"
	var b []byte
	for _, after := range []time.Duration{0, time.Second, 8 * time.Hour} {
		b = s.AppendJudged(b, &events.Record{Event: said("web.service", "READY=1", after)}, nil)
	}
	var headers []string
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.HasPrefix(line, "---") {
			headers = append(headers, line)
		}
	}
	want := []string{`--- Monday 2026-11-23, CET (UTC+01:00), box\x1b ---`, `--- Tuesday 2026-11-24, CET (UTC+01:00), box\x1b ---`}
	if diff := cmp.Diff(want, headers); diff != "" {
		t.Errorf("(-want +shown):\n%s", diff)
	}
}

func TestClocks(t *testing.T) {
	for name, want := range map[string][2]string{
		"utc":     {"16:01:46.123456", "16:01:47.373456"},
		"rfc3339": {"2026-11-23T16:01:46.123456Z", "2026-11-23T16:01:47.373456Z"},
		"delta":   {"   +0.000000", "   +1.250000"},
	} {
		clock, err := render.ClockOf(name)
		if err != nil {
			t.Fatal(err)
		}
		clock.Zone = time.UTC
		text := render.Text{Clock: clock}
		for i, after := range []time.Duration{0, 1250 * time.Millisecond} {
			line := string(text.AppendEvent(nil, said("web.service", "READY=1", after)))
			if !strings.HasPrefix(line, want[i]+" ") {
				t.Errorf("%s: %q, want %q first", name, line, want[i])
			}
		}
	}
	if _, err := render.ClockOf("sundial"); err == nil {
		t.Error("there is no such clock")
	}
}

// Whatever a record holds, its lines fit, and hold nothing that a terminal acts on.
func checkScreen(t *testing.T, e *events.Event, width int, whole bool) {
	t.Helper()
	message, _ := events.Parse(e.Payload)
	receipt, withheld, verdict := *eventtest.Receipts()[0], *eventtest.Withheld(), verdictOn(e, message)
	receipt.Send, withheld.Send = e, e
	s := screenOf(width)
	s.Whole = whole
	var b []byte
	for range 4 {
		b = s.AppendJudged(b, &events.Record{Event: e}, verdict)
	}
	b = s.AppendJudged(b, &events.Record{Receipt: &receipt}, nil)
	b = s.AppendJudged(b, &events.Record{Withheld: &withheld}, nil)
	b = s.AppendJudged(b, &events.Record{Verdict: verdict}, nil)
	b = s.AppendJudged(b, &events.Record{Unit: unitLike(e, events.UnitWaits)}, nil)
	b = s.AppendRest(b)
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
		eventtest.MustBeInert(t, []byte(line))
		if ansi.StringWidthWc(line) > width {
			t.Errorf("%d columns in a terminal of %d: %s", ansi.StringWidthWc(line), width, line)
		}
	}
}

func TestWordsThatAreLongerThanALineGoOn(t *testing.T) {
	for n := range 120 {
		long := strings.Repeat("x", n)
		u := &events.Unit{News: events.UnitWaits, Awaits: "READY=1", Trouble: "no " + long + " here", Time: eventtest.Time}
		shown := withoutHeader(string(screenOf(40).AppendJudged(nil, &events.Record{Unit: u}, nil)))
		for line := range strings.SplitSeq(strings.TrimSpace(shown), "\n") {
			if ansi.StringWidthWc(line) > 40 {
				t.Errorf("a word of %d columns: %q", n, line)
			}
		}
		if text := strings.Join(strings.Fields(shown), ""); !strings.HasSuffix(text, "no"+long+"here") {
			t.Errorf("a word of %d columns is not whole:\n%s", n, shown)
		}
	}
}

func FuzzScreen(f *testing.F) {
	for _, s := range eventtest.Nasty {
		f.Add([]byte("A="+s+"\n"+s), "comm", s, s)
		f.Add([]byte(s), s, s, s)
	}
	f.Add([]byte("READY=1\nSTATUS="+strings.Repeat("日本語", 30)), "日本語日本", "/a/日本語日本語日本語日本語日本語日本語.service", "@x")
	f.Fuzz(func(t *testing.T, payload []byte, comm, group, address string) {
		e := eventtest.Full()
		e.Payload, e.Text = payload, nil
		e.Sender.Comm, e.Sender.Cgroup, e.Socket.Address = comm, group, events.Address(address)
		// What an input shows is tried once, in one of many widths.
		width, whole := 40+len(payload)%97, len(comm)%2 == 0
		checkScreen(t, e, width, whole)
		e = eventtest.Plain("")
		e.Payload, e.Sender.Comm, e.Sender.Unit = payload, comm, group
		checkScreen(t, e, width, whole)
	})
}
