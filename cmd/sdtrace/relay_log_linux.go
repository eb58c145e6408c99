// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sdtrace/sdtrace/pkg/relay"
)

// decisionLog writes decisions, all of them or the first of each kind that
// something did not get through. It never holds up the relay: what a stuck
// terminal or journal does not take is counted.
type decisionLog struct {
	all   bool
	seen  map[kind]bool
	lines chan string
	lost  atomic.Uint64
	done  chan struct{}
	// stranger is what to say once more when somebody is refused who is not of the container.
	stranger string
}

// valueMax is how many bytes of a value a line has: those that wait are kept in memory.
const valueMax = 200

// kind is what decisions have in common that are reported once.
type kind struct {
	member  string
	key     relay.Key
	verdict relay.Verdict
	reason  relay.Reason
}

func newDecisionLog(w io.Writer, all bool) *decisionLog {
	l := &decisionLog{all: all, seen: map[kind]bool{}, lines: make(chan string, 4096), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for line := range l.lines {
			fmt.Fprint(w, line)
			if lost := l.lost.Swap(0); lost != 0 {
				fmt.Fprintf(w, "sdtrace: relay: %d lines not written: too slow a reader\n", lost)
			}
		}
	}()
	return l
}

// close writes what is left, as far as it is taken in time: the end does not wait for a log.
func (l *decisionLog) close() {
	close(l.lines)
	select {
	case <-l.done:
	case <-time.After(lastWords):
	}
}

// note is a relay's OnDecision.
func (l *decisionLog) note(d relay.Decision) {
	first := ""
	if !l.all {
		k := kind{d.Member, d.Key, d.Verdict, d.Reason}
		if !worthSaying(d) || l.seen[k] {
			return
		}
		l.seen[k] = true
		first = " (said once)"
	}
	l.write(formatDecision(time.Now(), d, first))
	if d.Reason == relay.ReasonNotMember && l.stranger != "" {
		l.say(l.stranger)
		l.stranger = ""
	}
}

// say writes what is no decision.
func (l *decisionLog) say(text string) { l.write("sdtrace: relay: " + text + "\n") }

// sayUndelivered takes what the host did not read in time for no failure: the unit is ready, and has ended.
func sayUndelivered(log *decisionLog, err error) error {
	if errors.Is(err, relay.ErrUndelivered) {
		log.say(err.Error())
		return nil
	}
	return err
}

func (l *decisionLog) write(line string) {
	select {
	case l.lines <- line:
	default:
		l.lost.Add(1)
	}
}

// worthSaying reports whether somebody who did not ask should know.
func worthSaying(d relay.Decision) bool {
	switch d.Verdict {
	case relay.Denied:
		switch d.Reason {
		case relay.ReasonNothingLeft, relay.ReasonEmpty, relay.ReasonDuplicate, relay.ReasonBarrierAbandoned:
			return false
		}
		return true
	case relay.Lost:
		return true
	case relay.Released:
		return d.Reason == relay.ReasonHostTakesNoFDs
	case relay.Held:
		return d.Reason == relay.ReasonUpstream || d.Reason == relay.ReasonTooManyBarriers
	}
	return false
}

func formatDecision(now time.Time, d relay.Decision, suffix string) string {
	who := d.Member
	if d.PID != 0 {
		who += "[" + strconv.Itoa(d.PID) + "]"
	}
	if who == "" {
		who = "relay"
	}
	line := now.Format("15:04:05.000000") + " " + who + " " + d.Key.String() + " " + d.Verdict.String()
	if d.Reason != relay.ReasonNone {
		line += ": " + d.Reason.String()
	}
	switch {
	case d.Value == nil:
	case len(d.Value) > valueMax:
		line += " " + strconv.QuoteToASCII(string(d.Value[:valueMax])) + "..."
	default:
		line += " " + strconv.QuoteToASCII(string(d.Value))
	}
	return line + suffix + "\n"
}
