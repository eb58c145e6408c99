// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"strconv"
	"sync/atomic"
)

// Key is a key of the protocol (sd_notify(3)), or one of the four classes
// below that stand for more than one name.
type Key uint8

// The keys, in the order of their names, then the classes.
const (
	KeyBarrier Key = iota
	KeyBusError
	KeyErrno
	KeyExitStatus
	KeyExtendTimeout
	KeyFDName
	KeyFDPoll
	KeyFDStore
	KeyFDStoreRemove
	KeyMainPID
	KeyMainPIDFD
	KeyMainPIDFDID
	KeyMonotonic
	KeyNotifyAccess
	KeyReady
	KeyReloading
	KeyRestartReset
	KeyStatus
	KeyStopping
	KeyVarlinkError
	KeyWatchdog
	KeyWatchdogUSec

	KeyTrigger // WATCHDOG=trigger, which has a rule of its own
	KeyPrivate // a key that begins with X_
	KeyUnknown // any other line
	KeyNone    // the datagram as a whole

	numKeys
)

var keyNames = [numKeys]string{
	"BARRIER", "BUSERROR", "ERRNO", "EXIT_STATUS", "EXTEND_TIMEOUT_USEC", "FDNAME", "FDPOLL",
	"FDSTORE", "FDSTOREREMOVE", "MAINPID", "MAINPIDFD", "MAINPIDFDID", "MONOTONIC_USEC",
	"NOTIFYACCESS", "READY", "RELOADING", "RESTART_RESET", "STATUS", "STOPPING", "VARLINKERROR",
	"WATCHDOG", "WATCHDOG_USEC", "WATCHDOG=trigger", "X_*", "unknown", "datagram",
}

// String returns the key as it is written in a datagram; the classes are
// "WATCHDOG=trigger", "X_*", "unknown" and "datagram".
func (k Key) String() string { return nameOf(keyNames[:], int(k), "Key") }

// nameOf is the name of a number of a type, or how Go would write one that has none.
func nameOf(names []string, n int, kind string) string {
	if n < 0 || n >= len(names) {
		return kind + "(" + strconv.Itoa(n) + ")"
	}
	return names[n]
}

// Verdict is what became of an assignment or of a datagram.
type Verdict uint8

// The verdicts.
const (
	Forwarded Verdict = iota // on its way to the host as it was
	Rewritten                // on its way to the host, changed: the reason says how
	Clamped                  // on its way to the host with a smaller value
	Added                    // put in by the relay
	Held                     // kept back until other containers say the same, or until its time
	Coalesced                // replaced, while the host did not read, by a later one
	Released                 // a barrier that the host has passed, or what was held until its time
	Denied                   // not forwarded
	Lost                     // accepted, and then not delivered before the relay ended

	numVerdicts
)

var verdictNames = [numVerdicts]string{
	"forwarded", "rewritten", "clamped", "added", "held", "coalesced", "released", "denied", "lost",
}

// String returns the verdict in lower case.
func (v Verdict) String() string { return nameOf(verdictNames[:], int(v), "Verdict") }

// Reason says why a verdict is what it is.
type Reason uint8

// The reasons.
const (
	ReasonNone Reason = iota // the verdict says it all

	// Of a datagram.
	ReasonEmpty             // no byte in it
	ReasonTooLong           // more than 4096 bytes
	ReasonNUL               // a NUL byte not at its end
	ReasonTrailingBackslash // its last byte escapes nothing
	ReasonControlTruncated  // the kernel could not deliver its ancillary data
	ReasonNoCredentials     // the sender is in no pid namespace that the relay sees
	ReasonUnidentified      // what the sender belongs to could not be found out
	ReasonNotMember         // the sender is not of the container
	ReasonNotMain           // the access mode is main, the sender another process
	ReasonNotExec           // the access mode is exec, the sender started inside
	ReasonUpstream          // the host's socket refused it, or was not there
	ReasonQueueFull         // no room left while the host did not read
	ReasonNothingLeft       // no assignment that could be forwarded
	ReasonExtraLines        // BARRIER=1 was not alone
	ReasonFDCount           // not as many file descriptors as the message takes
	ReasonTooManyBarriers   // too many were waiting for the host
	ReasonBarrierAbandoned  // its sender stopped waiting
	ReasonHostTakesNoFDs    // the host's socket refuses file descriptors (SO_PASSRIGHTS)
	ReasonUnusedFDs         // file descriptors that no assignment asked for: closed
	ReasonFDsNotTaken       // file descriptors were not taken: too many wait to be closed, or none are wanted

	// Of an assignment.
	ReasonPolicy         // the rule says so
	ReasonUnknownKey     // no key of the protocol
	ReasonInvalid        // systemd would not accept the value
	ReasonDuplicate      // systemd reads only the first
	ReasonNoSuchProcess  // no such process in the sender's pid namespace
	ReasonForeignProcess // a process that is not of the container
	ReasonMismatch       // MAINPIDFDID is not that of the process named
	ReasonPIDNamespace   // translated from the container's pid namespace
	ReasonTimeNamespace  // translated from the container's clock, or in the future
	ReasonNotAlone       // needs another assignment in the same datagram
	ReasonQuota          // more file descriptors than the rule grants, or budget used up
	ReasonForeignName    // FDNAME of file descriptors the container did not store
	ReasonPrefix         // put after the prefix of the rule
	ReasonSanitized      // bytes that are no text were replaced
	ReasonTrimmed        // cut to fit
	ReasonTooSoon        // the rule lets only so many through in a time
	ReasonGroup          // several containers share the unit
	ReasonNotStopping    // one process or container of several stops, not the unit: sent as STATUS

	numReasons
)

var reasonNames = [numReasons]string{
	"", "empty", "too long", "embedded NUL", "trailing backslash", "ancillary data truncated",
	"no credentials", "sender unidentified", "sender not in the container", "sender is not the main process",
	"sender started inside the container", "host socket unavailable", "queue full", "nothing left to forward",
	"barrier not alone", "wrong number of file descriptors", "too many barriers", "sender stopped waiting",
	"the host takes no file descriptors", "file descriptors nobody asked for", "file descriptors not taken",
	"policy", "unknown key", "invalid value", "not the first", "no such process",
	"process not in the container", "MAINPIDFDID of another process", "pid namespace", "time namespace",
	"not in this datagram", "quota", "not a name of the container", "prefix", "not text", "cut to fit",
	"too soon", "several containers", "the unit is not stopping",
}

// String returns the reason in a few words, "" for [ReasonNone].
func (r Reason) String() string { return nameOf(reasonNames[:], int(r), "Reason") }

// Decision is one verdict of a relay: on an assignment, or, with [KeyNone], on
// a whole datagram.
type Decision struct {
	Member  string  // the name of the container, as in [Member]
	PID     int     // the sender, in the relay's pid namespace; 0: unknown, or the relay itself
	Key     Key     // of the assignment, or [KeyNone]
	Verdict Verdict // what became of it
	Reason  Reason  // why
	// Value is what was forwarded, or what was denied, without control bytes
	// escaped. It is valid until the callback returns; nil where there is none.
	Value []byte
}

// Count is how often a verdict was given.
type Count struct {
	Key     Key     // of the assignments, or [KeyNone]
	Verdict Verdict // what became of them
	Reason  Reason  // why
	N       uint64  // how many of them, since the relay was made
}

// counters counts verdicts; they only grow.
type counters [numKeys][numVerdicts][numReasons]atomic.Uint64

// counts returns those that are not zero, in the order of the constants.
func (c *counters) counts() []Count {
	var counts []Count
	for k := range numKeys {
		for v := range numVerdicts {
			for r := range numReasons {
				if n := c[k][v][r].Load(); n != 0 {
					counts = append(counts, Count{k, v, r, n})
				}
			}
		}
	}
	return counts
}

// recorder counts and reports the decisions about one datagram.
type recorder struct {
	counters *counters
	callback func(Decision) // may be nil
	member   string
	pid      int
	uid      uint32
	denied   bool // the sender may not notify
}

func (r *recorder) owner() owner { return owner{r.member, r.uid, r.denied} }

func (r *recorder) note(key Key, verdict Verdict, reason Reason, value []byte) {
	r.counters[key][verdict][reason].Add(1)
	if r.callback != nil {
		r.callback(Decision{Member: r.member, PID: r.pid, Key: key, Verdict: verdict, Reason: reason, Value: value})
	}
}
