// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// figure is one or more rows of the table.
type figure struct {
	name    string
	measure func(*bench) ([]row, error)
}

var figures = []figure{
	{"added per captured datagram", measureCaptured},
	{"added by strace", measureStrace},
	{"added by bpftrace", measureBpftrace},
	{"added to what is of no interest", measureOthers},
	{"added by a program that does nothing", measureFloor},
	{"processor time and memory", measureLoad},
	{"start", measureStart},
	{"decode and encode", measureEncoder},
	{"flat out", measureFlood},
	// Last, as the containers stay.
	{"filtered by 1, 100, 10,000 control groups", measureFilters},
	{"10,000 containers", measureContainers},
}

// batch is how many operations a measurement has, warm how many come before it: until every
// page of the ring buffer has been used.
const (
	batch = 10_000
	warm  = 30_000
	// catchUp is what sdtrace takes for a batch, and more.
	catchUp = time.Second / 4
)

func (b *bench) pairs() int {
	if b.short {
		return 3
	}
	return 15
}

// added is how much longer each operation of s takes while sdtrace runs, in pairs. One in which
// something was lost, which costs less, is made again.
func (b *bench) added(s *sender, op string, args ...string) (bare, added spread, err error) {
	var without, more []float64
	for tries := 0; len(more) < b.pairs(); tries++ {
		a, with, lost, err := b.pair(s, op, args...)
		if err == nil {
			err = b.ctx.Err()
		}
		if err == nil && lost > 0 && tries > 2*b.pairs() {
			err = fmt.Errorf("%d datagrams were lost, again and again", lost)
		}
		if err != nil {
			return bare, added, err
		}
		if lost == 0 {
			without, more = append(without, a), append(more, with-a)
		}
	}
	return spreadOf(without), spreadOf(more), nil
}

// difference is how much more each operation takes with something than without, in pairs.
func (b *bench) difference(pairs int, without, with func() (float64, error)) (spread, error) {
	var more []float64
	for range pairs {
		bare, err := without()
		if err != nil {
			return spread{}, err
		}
		n, err := with()
		if err == nil {
			err = b.ctx.Err()
		}
		if err != nil {
			return spread{}, err
		}
		more = append(more, n-bare)
	}
	return spreadOf(more), nil
}

func (b *bench) pair(s *sender, op string, args ...string) (without, with float64, lost int, err error) {
	if without, err = s.do(op, batch); err != nil {
		return without, with, lost, err
	}
	c, err := startCapture(b, args...)
	if err != nil {
		return without, with, lost, err
	}
	// In parts for which the ring buffer has room, whoever is slower: that nothing is lost at full speed is another
	// measurement's.
	for range warm / batch {
		if _, err = s.do(op, batch); err != nil {
			return without, with, lost, err
		}
		time.Sleep(catchUp)
	}
	if with, err = s.do(op, batch); err != nil {
		return without, with, lost, err
	}
	sent := 0
	if op == opNotify {
		sent = warm + batch
	}
	lost, err = c.end(sent)
	return without, with, lost, err
}

func measureCaptured(b *bench) ([]row, error) {
	s, err := startSender(b.dir, 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	bare, added, err := b.added(s, opNotify)
	return []row{
		{"a notify datagram, sent and received in one thread", bare.text("ns"), ""},
		{"... added by sdtrace, captured", added.text("ns"), "1000 ns"},
	}, err
}

func measureStrace(b *bench) ([]row, error) {
	const few = 2000
	bare, err := startSender(b.dir, 0)
	if err != nil {
		return nil, err
	}
	defer bare.stop()
	traced, err := startSender(b.dir, 0, "strace", "-f", "--seccomp-bpf", "-e", "trace=sendto,sendmsg,write", "-o", filepath.Join(b.dir, "strace"))
	if err != nil {
		return nil, err
	}
	defer traced.stop()
	added, err := b.difference(b.pairs(),
		func() (float64, error) { return bare.do(opNotify, few) },
		func() (float64, error) { return traced.do(opNotify, few) })
	return []row{{"... added by strace -f --seccomp-bpf", added.text("ns"), ""}}, err
}

func measureBpftrace(b *bench) ([]row, error) {
	s, err := startSender(b.dir, 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	added, err := b.difference(min(b.pairs(), 7),
		func() (float64, error) { return s.do(opNotify, batch) },
		func() (float64, error) {
			stop, err := startBpftrace(b)
			if err != nil {
				return 0, err
			}
			defer stop()
			return s.do(opNotify, batch)
		})
	return []row{{"... added by bpftrace that prints it", added.text("ns"), ""}}, err
}

func measureOthers(b *bench) ([]row, error) {
	s, err := startSender(b.dir, 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	var rows []row
	for _, other := range []struct{ op, what, target string }{
		{opOther, "added to an AF_UNIX datagram of no interest", "100 ns"},
		{opStream, "added to a write to an AF_UNIX stream", "nothing"},
		{opTCP, "added to a send over TCP", "nothing"},
		{opGetppid, "added to getppid(2)", "nothing"},
	} {
		_, added, err := b.added(s, other.op)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{other.what, added.text("ns"), other.target})
	}
	return rows, nil
}

func measureFilters(b *bench) ([]row, error) {
	var rows []row
	for _, n := range []int{1, 100, 10_000} {
		if err := b.groups.grow(n, false); err != nil {
			return nil, err
		}
		s, err := startSender(b.dir, 0)
		if err != nil {
			return nil, err
		}
		last := b.groups.paths(n)[n-1]
		err = os.WriteFile(filepath.Join(last, "cgroup.procs"), []byte(strconv.Itoa(s.cmd.Process.Pid)), 0)
		var args []string
		for _, path := range b.groups.paths(n) {
			args = append(args, "--cgroup", path)
		}
		var added spread
		if err == nil {
			_, added, err = b.added(s, opNotify, args...)
		}
		s.stop()
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{fmt.Sprintf("added with %d --cgroup, sent from the last", n), added.text("ns"), "as with 1"})
	}
	return rows, nil
}

// measureContainers sends from one container and from each in turn, while there are few and
// while there are many.
func measureContainers(b *bench) ([]row, error) {
	var rows []row
	for _, n := range []int{1, 10_000} {
		if err := b.groups.grow(n, true); err != nil {
			return nil, err
		}
		s, err := startSender(b.dir, 0)
		if err != nil {
			return nil, err
		}
		more, err := b.tour(s, n)
		s.stop()
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (b *bench) tour(s *sender, n int) ([]row, error) {
	var added, cpu []float64
	for range min(b.pairs(), 3) {
		bare, err := s.tourOf(n, b.groups.dir)
		if err != nil {
			return nil, err
		}
		c, err := startCapture(b)
		if err != nil {
			return nil, err
		}
		// Until all are known, and their names were looked for.
		warmed := 0
		for began := time.Now(); time.Since(began) < warmTime; warmed++ {
			if _, err := s.tourOf(n, b.groups.dir); err != nil {
				return nil, err
			}
		}
		before, err := c.cpu()
		if err != nil {
			return nil, err
		}
		with, err := s.tourOf(n, b.groups.dir)
		if err != nil {
			return nil, err
		}
		after, err := c.cpu()
		if err != nil {
			return nil, err
		}
		if err := c.stop((warmed + 1) * toursOf(n) * n); err != nil {
			return nil, err
		}
		added, cpu = append(added, with-bare), append(cpu, float64(after-before)/float64(toursOf(n)*n))
	}
	return []row{
		{fmt.Sprintf("added with %d live containers that send in turn", n), spreadOf(added).text("ns"), "as with 1"},
		{"... processor time of sdtrace for each", spreadOf(cpu).text("ns"), "as with 1"},
	}, nil
}

// warmTime is how long there is sending before many containers are measured.
const warmTime = 10 * time.Second

// toursOf makes the number of datagrams the same.
func toursOf(n int) int { return max(1, 10_000/n) }

func (s *sender) tourOf(n int, dir string) (ns float64, err error) {
	tours := toursOf(n)
	for range tours {
		each, err := s.do(opTour, n, dir)
		if err != nil {
			return 0, err
		}
		ns += each / float64(tours)
	}
	return ns, nil
}

func measureLoad(b *bench) ([]row, error) {
	s, err := startSender(b.dir, 0)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	var rows []row
	for _, rate := range []int{0, 1000, 10_000, 100_000} {
		var shares []float64
		var most float64
		lost := 0
		for range min(b.pairs(), 3) {
			l, err := b.load(s, rate)
			if err != nil {
				return nil, err
			}
			shares, most, lost = append(shares, l.share), max(most, l.peak), lost+l.lost
		}
		figure := fmt.Sprintf("%s of a core, %.0f MiB", spreadOf(shares).text("%"), most)
		if lost > 0 {
			figure += fmt.Sprintf(", %d lost", lost)
		}
		target := "40 MiB"
		if rate == 0 {
			target = "0 %, 40 MiB"
		}
		rows = append(rows, row{fmt.Sprintf("sdtrace at %d datagrams a second", rate), figure, target})
	}
	return rows, nil
}

// load is what sdtrace uses: a share of a processor in percent, and MiB.
type load struct {
	share, peak float64
	lost        int
}

func (b *bench) load(s *sender, rate int) (l load, err error) {
	c, err := startCapture(b)
	if err != nil {
		return l, err
	}
	// What it does in the first seconds is not what it does idle.
	time.Sleep(2 * time.Second)
	before, err := c.cpu()
	if err != nil {
		return l, err
	}
	began := time.Now()
	if rate == 0 {
		time.Sleep(paceTime)
	} else if _, err := s.do(opPace, rate); err != nil {
		return l, err
	}
	after, err := c.cpu()
	if err != nil {
		return l, err
	}
	l.share = 100 * (after - before).Seconds() / time.Since(began).Seconds()
	if l.peak, err = c.peak(); err != nil {
		return l, err
	}
	l.lost, err = c.end(rate * int(paceTime/time.Second))
	return l, err
}

func measureStart(b *bench) ([]row, error) {
	var took []float64
	for range b.pairs() {
		c, err := startCapture(b)
		if err != nil {
			return nil, err
		}
		took = append(took, float64(c.started.Milliseconds()))
		if err := c.stop(0); err != nil {
			return nil, err
		}
	}
	return []row{{"from the start of sdtrace until it is attached", spreadOf(took).text("ms"), "500 ms"}}, nil
}

var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op\s+\d+ B/op\s+(\d+) allocs/op`)

func measureEncoder(b *bench) ([]row, error) {
	count := "5"
	if b.short {
		count = "1"
	}
	out, err := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkDecode", "-benchmem", "-count", count, "./internal/wire").Output()
	if err != nil {
		return nil, fmt.Errorf("go test -bench: %w", err)
	}
	times, allocs := map[string][]float64{}, map[string]string{}
	var names []string
	for _, m := range benchmarkLine.FindAllStringSubmatch(string(out), -1) {
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		if times[m[1]] == nil {
			names = append(names, m[1])
		}
		times[m[1]], allocs[m[1]] = append(times[m[1]], ns), m[3]
	}
	if len(names) == 0 {
		return nil, errors.New("internal/wire has no benchmark of that name any more")
	}
	var rows []row
	for _, name := range names {
		target := ""
		if strings.HasPrefix(name, "DecodeAndJSON") {
			target = "1000 ns, 0"
		}
		rows = append(rows, row{name + ", for each event", spreadOf(times[name]).text("ns") + ", " + allocs[name] + " allocations", target})
	}
	return rows, nil
}

// measureFlood has senders send as fast as they can.
func measureFlood(b *bench) ([]row, error) {
	limit := time.Minute
	if b.short {
		limit = 5 * time.Second
	}
	var rows []row
	var last flooded
	for senders := 1; senders <= 2; senders++ {
		bare, err := b.flood(senders, limit/6)
		if err != nil {
			return nil, err
		}
		c, err := startCapture(b)
		if err != nil {
			return nil, err
		}
		sent, err := b.flood(senders, limit)
		if err != nil {
			return nil, err
		}
		peak, err := c.peak()
		if err != nil {
			return nil, err
		}
		lost, err := c.end(sent.datagrams)
		if err != nil {
			return nil, err
		}
		last = sent
		share := "none lost"
		if lost > 0 {
			share = fmt.Sprintf("%d lost (%.2f %%)", lost, 100*float64(lost)/float64(sent.datagrams))
		}
		rows = append(rows, row{
			fmt.Sprintf("%d flat out for %.0f s, datagrams a second", senders, limit.Seconds()),
			fmt.Sprintf("%.0f, %s; %.0f without; %.0f MiB", sent.rate(), share, bare.rate(), peak), "none lost",
		})
	}
	sustained, err := b.sustained(int(last.rate()))
	if err != nil {
		return nil, err
	}
	return append(rows, row{"... the most of 2 of which none was lost for ten seconds", sustained, ""}), nil
}

// sustained looks for the rate at which two senders together lose nothing, from some rate down.
func (b *bench) sustained(rate int) (string, error) {
	for ; rate > 1000; rate -= rate / 10 {
		c, err := startCapture(b)
		if err != nil {
			return "", err
		}
		sent, err := b.together(2, func(s *sender) (int, error) {
			_, err := s.do(opPace, rate/2)
			return rate / 2 * int(paceTime/time.Second), err
		})
		if err != nil {
			return "", err
		}
		lost, err := c.end(sent.datagrams)
		if err != nil {
			return "", err
		}
		if lost == 0 {
			return fmt.Sprintf("%.0f a second", sent.rate()), nil
		}
	}
	return "none", nil
}

type flooded struct {
	datagrams int
	took      time.Duration
}

func (f flooded) rate() float64 { return float64(f.datagrams) / f.took.Seconds() }

func (b *bench) flood(senders int, limit time.Duration) (flooded, error) {
	began := time.Now()
	return b.together(senders, func(s *sender) (n int, err error) {
		for err == nil && time.Since(began) < limit && b.ctx.Err() == nil {
			_, err = s.do(opNotify, batch)
			n += batch
		}
		return n, err
	})
}

// together has several senders send at a time, each on a processor of its own.
func (b *bench) together(senders int, send func(*sender) (n int, err error)) (flooded, error) {
	type part struct {
		n   int
		err error
	}
	parts := make(chan part, senders)
	began := time.Now()
	for i := range senders {
		s, err := startSender(b.dir, i)
		if err != nil {
			return flooded{}, err
		}
		defer s.stop()
		go func() {
			n, err := send(s)
			parts <- part{n, err}
		}()
	}
	var f flooded
	var err error
	for range senders {
		p := <-parts
		f.datagrams += p.n
		err = errors.Join(err, p.err)
	}
	f.took = time.Since(began)
	return f, err
}
