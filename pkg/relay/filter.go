// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// sender answers what a filter has to ask about who wrote a datagram. A call
// may be slow.
type sender interface {
	// mainPID translates a process id from the sender's pid namespace and holds
	// the process. inode is that of its pidfd, 0 where the kernel has none that
	// means anything. why is not ReasonNone when there is no such process, or none
	// that the sender may name.
	mainPID(pid uint64) (host int, inode uint64, why Reason)
	// mainPIDFD is the same for the datagram's only file descriptor, a pidfd.
	mainPIDFD() (host int, inode uint64, why Reason)
	// hostClock translates µs of the sender's CLOCK_MONOTONIC to the host's, at
	// most now. ok is false when it is not known how.
	hostClock(usec uint64) (host uint64, ok bool)
	// now is the host's CLOCK_MONOTONIC in µs.
	now() uint64
	// stopsUnit reports whether the unit stops when the sender does.
	stopsUnit() bool
	// reloadsUnit and readiesUnit report whether the unit begins to reload, or is ready, when the sender says so.
	reloadsUnit() bool
	readiesUnit() bool
}

// judgement is what to do with a datagram.
type judgement struct {
	msg      *message // nil: nothing to forward
	barrier  bool     // BARRIER=1 with its file descriptor: the caller handles and notes it
	storeFDs bool     // the file descriptors of the datagram go along, into the host's store
	mainFD   bool     // the file descriptor of the datagram goes along: a pidfd
}

// filter takes the datagrams of one container apart the way systemd does, applies
// the policy, and puts what is left together anew. It allocates nothing once
// its buffers have grown, and is not for concurrent use.
type filter struct {
	policy *Policy
	unit   *unitPhase
	budget budget

	// The datagram that is judged.
	sender sender
	rec    recorder
	fds    int
	seen   keySet          // what is in it and not denied yet
	value  [numKeys][]byte // of those seen

	msg     message
	lines   []byte // what value points into, each line followed by a NUL
	status  []byte
	private []byte
	name    []byte
	digits  [20]byte
}

func newFilter(p *Policy, unit *unitPhase) *filter { return &filter{policy: p, unit: unit} }

// literals are the keys that systemd heeds wherever they stand, with one value
// only (strv_contains). Of the others it reads the first (strv_find_startswith).
const literals = keySet(1<<KeyBarrier | 1<<KeyFDPoll | 1<<KeyFDStore | 1<<KeyFDStoreRemove | 1<<KeyMainPIDFD |
	1<<KeyReady | 1<<KeyReloading | 1<<KeyRestartReset | 1<<KeyStopping)

// Keys that are judged together.
const (
	mainKeys  = keySet(1<<KeyMainPID | 1<<KeyMainPIDFD | 1<<KeyMainPIDFDID)
	storeKeys = keySet(1<<KeyFDStore | 1<<KeyFDStoreRemove | 1<<KeyFDName | 1<<KeyFDPoll)
)

// maxName is the most bytes that a name has: of a file descriptor (systemd:
// FDNAME_MAX) and of an error (D-Bus specification; Varlink has no bound).
const maxName = 255

// maxShown is how many bytes of a refused datagram are reported.
const maxShown = 64

// judge reads a datagram in systemd's dialect and applies the policy. It notes
// every decision in rec: each assignment once, or the datagram as a whole.
func (f *filter) judge(payload []byte, nfds int, s sender, rec *recorder) judgement {
	f.sender, f.rec, f.fds = s, *rec, nfds
	f.seen, f.msg.keys = 0, 0
	if why := f.tokenize(payload); why != ReasonNone {
		f.refuse(why, payload)
		return judgement{}
	}
	if f.hasBarrier() {
		return f.judgeBarrier(payload)
	}
	f.readLines()
	f.judgeMainPID()
	f.judgeReloading()
	f.judgeReady()
	f.judgeStopping()
	f.judgeTimeouts()
	f.judgeStore()
	f.judgeValues()
	f.judgeTexts()

	j := judgement{storeFDs: f.msg.keys.has(KeyFDStore), mainFD: f.msg.keys.has(KeyMainPIDFD)}
	if nfds > 0 && !j.storeFDs && !j.mainFD {
		f.refuse(ReasonUnusedFDs, nil)
	}
	if f.msg.keys == 0 {
		f.refuse(ReasonNothingLeft, nil)
		return judgement{}
	}
	j.msg = &f.msg
	return j
}

// refuse notes a decision about the datagram as a whole.
func (f *filter) refuse(why Reason, payload []byte) {
	f.rec.note(KeyNone, Denied, why, payload[:min(len(payload), maxShown)])
}

// deny decides that an assignment is not forwarded.
func (f *filter) deny(key Key, why Reason) {
	f.seen &^= 1 << key
	f.rec.note(key, Denied, why, f.value[key])
}

// denyAll denies those of keys that are in the datagram.
func (f *filter) denyAll(keys keySet, why Reason) {
	for key := range numKeys {
		if (f.seen & keys).has(key) {
			f.deny(key, why)
		}
	}
}

func (f *filter) denied(key Key) bool { return f.policy.rules[key].Action == Deny }

// wants reports whether a key is in the datagram and the policy lets it pass.
// What is in it and may not pass is denied.
func (f *filter) wants(key Key) bool {
	if f.seen.has(key) && f.denied(key) {
		f.deny(key, ReasonPolicy)
	}
	return f.seen.has(key)
}

// put forwards a text or a literal.
func (f *filter) put(key Key, value []byte, verdict Verdict, why Reason) {
	f.msg.keys |= 1 << key
	f.msg.text[key] = value
	f.rec.note(key, verdict, why, value)
}

// forward forwards what the container wrote.
func (f *filter) forward(key Key) { f.put(key, f.value[key], Forwarded, ReasonNone) }

// putNumber forwards a number. The verdict is changed, for the reason why,
// unless the container wrote the same number, or none.
func (f *filter) putNumber(key Key, n uint64, changed Verdict, why Reason) {
	f.msg.keys |= 1 << key
	f.msg.number[key] = n
	own, ok := f.number(key)
	switch {
	case !f.seen.has(key):
		changed, why = Added, ReasonNone
	case ok && own == n:
		changed, why = Forwarded, ReasonNone
	}
	f.rec.note(key, changed, why, strconv.AppendUint(f.digits[:0], n, 10))
}

// tokenize splits the datagram into lines.
func (f *filter) tokenize(payload []byte) Reason {
	if len(payload) == 0 {
		return ReasonEmpty
	}
	var err error
	f.lines, err = events.AppendLines(f.lines[:0], payload)
	switch {
	case err == nil:
		return ReasonNone
	case errors.Is(err, events.ErrTooLong):
		return ReasonTooLong
	case errors.Is(err, events.ErrEmbeddedNUL):
		return ReasonNUL
	default:
		return ReasonTrailingBackslash
	}
}

// nextLine returns the first of lines, and those behind it.
func nextLine(lines []byte) (line, rest []byte) {
	end := bytes.IndexByte(lines, 0)
	return lines[:end], lines[end+1:]
}

func (f *filter) hasBarrier() bool {
	for rest := f.lines; len(rest) > 0; {
		var line []byte
		if line, rest = nextLine(rest); string(line) == syntax[KeyBarrier].start {
			return true
		}
	}
	return false
}

// judgeBarrier judges a datagram with a line BARRIER=1, which systemd drops if
// there is another (manager_process_barrier_fd).
func (f *filter) judgeBarrier(payload []byte) judgement {
	switch {
	case len(f.lines) != len(syntax[KeyBarrier].start)+1:
		f.refuse(ReasonExtraLines, payload)
	case f.denied(KeyBarrier):
		f.rec.note(KeyBarrier, Denied, ReasonPolicy, nil)
	case f.fds != 1:
		f.rec.note(KeyBarrier, Denied, ReasonFDCount, nil)
	default:
		return judgement{barrier: true}
	}
	return judgement{}
}

// keysByName holds the keys, but not the classes.
var keysByName = func() map[string]Key {
	m := make(map[string]Key)
	for key := range KeyTrigger {
		m[key.String()] = key
	}
	return m
}()

// splitLine splits a line into its name and its value, and says which key that
// is. KeyUnknown has neither.
func splitLine(line []byte) (key Key, name, value []byte) {
	name, value, found := bytes.Cut(line, []byte{'='})
	key, known := keysByName[string(name)]
	switch {
	case found && known:
		return key, name, value
	case found && bytes.HasPrefix(name, []byte("X_")):
		return KeyPrivate, name, value
	}
	return KeyUnknown, nil, nil
}

// readLines finds out which keys the datagram has, and denies the lines that
// systemd would not heed.
func (f *filter) readLines() {
	for rest := f.lines; len(rest) > 0; {
		var line []byte
		line, rest = nextLine(rest)
		key, _, value := splitLine(line)
		switch {
		case key == KeyUnknown:
			f.rec.note(key, Denied, ReasonUnknownKey, line)
		case key == KeyPrivate:
			f.seen |= 1 << key
		case literals.has(key) && string(line) != syntax[key].start:
			f.rec.note(key, Denied, ReasonInvalid, value)
		case f.seen.has(key):
			f.rec.note(key, Denied, ReasonDuplicate, value)
		default:
			f.seen |= 1 << key
			f.value[key] = value
		}
	}
	if f.seen.has(KeyWatchdog) && string(f.value[KeyWatchdog]) == "trigger" {
		f.seen ^= 1<<KeyWatchdog | 1<<KeyTrigger
		f.value[KeyTrigger] = f.value[KeyWatchdog]
	}
}

// number is the value of a key that is in the datagram.
func (f *filter) number(key Key) (uint64, bool) { return parseNumber(f.value[key]) }

// parseNumber takes only what is decimal to every reader: to systemd 010 is 8
// (safe_atou64).
func parseNumber(s []byte) (n uint64, ok bool) {
	if len(s) == 0 || (s[0] == '0' && len(s) > 1) {
		return 0, false
	}
	for _, c := range s {
		digit := uint64(c) - '0'
		if digit > 9 || n > (math.MaxUint64-digit)/10 {
			return 0, false
		}
		n = 10*n + digit
	}
	return n, true
}

// judgeMainPID judges MAINPID, MAINPIDFD and MAINPIDFDID. Whichever of the first
// two the container used, what goes out has a MAINPID that the relay vouches for.
func (f *filter) judgeMainPID() {
	if f.denied(KeyMainPID) {
		f.denyAll(mainKeys, ReasonPolicy)
		return
	}
	withFD, withID := f.wants(KeyMainPIDFD), f.wants(KeyMainPIDFDID)
	if !withFD && !f.seen.has(KeyMainPID) {
		f.denyAll(mainKeys, ReasonNotAlone)
		return
	}
	host, inode, why := f.findMain(withFD)
	if why == ReasonNone && withID && inode != 0 {
		if id, ok := f.number(KeyMainPIDFDID); !ok || id != inode {
			why = ReasonMismatch
		}
	}
	if why != ReasonNone {
		f.denyAll(mainKeys, why)
		return
	}
	f.putNumber(KeyMainPID, uint64(host), Rewritten, ReasonPIDNamespace)
	if withFD {
		f.forward(KeyMainPIDFD)
	}
	switch {
	case inode != 0 && !f.denied(KeyMainPIDFDID):
		f.putNumber(KeyMainPIDFDID, inode, Rewritten, ReasonPIDNamespace)
	case withID:
		f.deny(KeyMainPIDFDID, ReasonInvalid)
	}
}

// findMain finds the process that is to be the main one, by its pidfd or by
// its number.
func (f *filter) findMain(withFD bool) (host int, inode uint64, why Reason) {
	if !withFD {
		pid, ok := f.number(KeyMainPID)
		if !ok || pid == 0 {
			return 0, 0, ReasonInvalid
		}
		return f.sender.mainPID(pid)
	}
	// A datagram has one set of file descriptors: it is the store's or this one.
	if f.fds != 1 || (f.seen.has(KeyFDStore) && !f.denied(KeyFDStore)) {
		return 0, 0, ReasonFDCount
	}
	return f.sender.mainPIDFD()
}

// judgeReloading judges RELOADING and MONOTONIC_USEC, without which
// systemd does not take the former for an answer to its reload signal.
func (f *filter) judgeReloading() {
	if !f.wants(KeyReloading) {
		if f.wants(KeyMonotonic) {
			f.deny(KeyMonotonic, ReasonNotAlone)
		}
		return
	}
	f.forward(KeyReloading)
	if f.sender.reloadsUnit() {
		f.unit.reload()
	}
	if f.denied(KeyMonotonic) {
		f.denyAll(1<<KeyMonotonic, ReasonPolicy)
		return
	}
	f.putNumber(KeyMonotonic, f.reloadTime(), Rewritten, ReasonTimeNamespace)
}

// reloadTime is what the datagram says, on the host's clock, or else now.
func (f *filter) reloadTime() uint64 {
	if f.seen.has(KeyMonotonic) {
		usec, ok := f.number(KeyMonotonic)
		if !ok {
			f.deny(KeyMonotonic, ReasonInvalid)
		} else if host, ok := f.sender.hostClock(usec); ok {
			return host
		} else {
			f.deny(KeyMonotonic, ReasonUnidentified)
		}
	}
	return f.sender.now()
}

func (f *filter) judgeReady() {
	if f.wants(KeyReady) {
		f.forward(KeyReady)
		if f.sender.readiesUnit() {
			f.unit.run()
		}
	}
}

// judgeStopping judges STOPPING, which systemd does not let anybody take back.
func (f *filter) judgeStopping() {
	switch {
	case !f.wants(KeyStopping):
	case f.policy.rules[KeyStopping].Action == Allow || f.sender.stopsUnit():
		f.forward(KeyStopping)
		f.unit.stop()
	case f.seen.has(KeyStatus) || f.denied(KeyStatus):
		f.deny(KeyStopping, ReasonNotStopping)
	default:
		f.status = append(append(f.status[:0], f.policy.rules[KeyStatus].Prefix...), "Stopping"...)
		f.msg.keys |= 1 << KeyStatus
		f.msg.text[KeyStatus] = f.status
		f.rec.note(KeyStopping, Rewritten, ReasonNotStopping, f.status)
	}
}

// isTime reports whether µs are a time to systemd (timestamp_is_set): 0
// and infinity are none.
func isTime(usec uint64) bool { return usec != 0 && usec != math.MaxUint64 }

// judgeTimeouts judges EXTEND_TIMEOUT_USEC and WATCHDOG_USEC.
func (f *filter) judgeTimeouts() {
	if f.wants(KeyExtendTimeout) {
		f.judgeExtend(f.policy.rules[KeyExtendTimeout])
	}
	if f.wants(KeyWatchdogUSec) {
		f.judgeWatchdogUSec(f.policy.rules[KeyWatchdogUSec])
	}
}

func (f *filter) judgeExtend(rule Rule) {
	usec, ok := f.number(KeyExtendTimeout)
	if !ok || !isTime(usec) {
		f.deny(KeyExtendTimeout, ReasonInvalid)
		return
	}
	granted, why := atMost(usec, rule.Max), ReasonPolicy
	if rule.Budget > 0 {
		if left := f.budget.left(f.unit, rule.Budget, f.sender.now()); left < granted {
			granted, why = left, ReasonQuota
		}
	}
	if granted == 0 {
		f.deny(KeyExtendTimeout, why)
		return
	}
	f.putNumber(KeyExtendTimeout, granted, Clamped, why)
}

// judgeWatchdogUSec lets, if there is a limit, nobody turn the watchdog off.
func (f *filter) judgeWatchdogUSec(rule Rule) {
	usec, ok := f.number(KeyWatchdogUSec)
	if !ok || (rule.Action == Clamp && !isTime(usec)) {
		f.deny(KeyWatchdogUSec, ReasonInvalid)
		return
	}
	f.putNumber(KeyWatchdogUSec, atMost(usec, rule.Max), Clamped, ReasonPolicy)
}

// atMost limits µs; a limit of 0 is none.
func atMost(usec uint64, limit time.Duration) uint64 {
	if limit > 0 {
		return min(usec, uint64(limit.Microseconds()))
	}
	return usec
}

// phase is what systemd has a timer for (service_extend_timeout).
type phase uint8

const (
	starting phase = iota
	running
	reloading
	stopping

	numPhases
)

// unitPhase is the one that the host has been told of: of several containers together.
type unitPhase struct {
	phase   phase
	reloads int         // that there were: each has a timer of its own
	asked   atomic.Bool // it is to stop, whatever it says
}

// now is what the service manager has a timer for.
func (u *unitPhase) now() phase {
	if u.asked.Load() {
		return stopping
	}
	return u.phase
}

// reload begins a phase with a new timer, if the unit was running.
func (u *unitPhase) reload() {
	if u.phase == running {
		u.phase = reloading
		u.reloads++
	}
}

// run goes back to the timer that was there before a reload.
func (u *unitPhase) run() {
	if u.phase != stopping {
		u.phase = running
	}
}

func (u *unitPhase) stop() { u.phase = stopping }

// budget keeps in mind since when a container has had a deadline moved.
type budget struct {
	since   [numPhases]uint64 // host's CLOCK_MONOTONIC in µs; 0: never
	reloads int               // which reload that of reloading is about
}

// left is how many µs from now the deadline can be.
func (b *budget) left(u *unitPhase, limit time.Duration, now uint64) uint64 {
	if b.reloads != u.reloads {
		b.reloads, b.since[reloading] = u.reloads, 0
	}
	since := &b.since[u.now()]
	if *since == 0 {
		*since = now
	}
	end := *since + uint64(limit.Microseconds())
	return end - min(now, end)
}

// judgeStore judges what is about the host's store of file descriptors:
// FDSTORE or, which has precedence, FDSTOREREMOVE, with FDNAME and FDPOLL.
func (f *filter) judgeStore() {
	verb := KeyFDStore
	if f.seen.has(KeyFDStoreRemove) {
		verb = KeyFDStoreRemove
		f.denyAll(1<<KeyFDStore, ReasonDuplicate)
	}
	named, polled := f.wants(KeyFDName), f.wants(KeyFDPoll)
	switch {
	case !f.wants(verb) || (verb == KeyFDStoreRemove && !named):
		f.denyAll(storeKeys, ReasonNotAlone)
		return
	case verb == KeyFDStore && f.fds == 0:
		f.denyAll(storeKeys, ReasonFDCount)
		return
	case named && !f.readName():
		f.denyAll(storeKeys, ReasonInvalid)
		return
	}
	f.forward(verb)
	if polled {
		f.forward(KeyFDPoll)
	}
	f.putName(named)
}

// readName reads FDNAME, with the prefix before it, and reports whether that
// is a name.
func (f *filter) readName() bool {
	f.name = append(append(f.name[:0], f.policy.rules[KeyFDName].Prefix...), f.value[KeyFDName]...)
	return isFDName(f.name)
}

func (f *filter) putName(named bool) {
	prefix := f.policy.rules[KeyFDName].Prefix
	switch {
	case named && prefix == "":
		f.forward(KeyFDName)
	case named:
		f.put(KeyFDName, f.name, Rewritten, ReasonPrefix)
	case prefix != "":
		// The name that systemd gives by itself (service_add_fd_store).
		f.name = append(append(f.name[:0], prefix...), "stored"...)
		f.put(KeyFDName, f.name, Added, ReasonPrefix)
	}
}

// checks are those of the keys that are forwarded as they are or not at all.
var checks = []struct {
	key   Key
	valid func(value []byte) bool
}{
	{KeyRestartReset, func([]byte) bool { return true }},
	{KeyWatchdog, func(s []byte) bool { return string(s) == "1" }},
	{KeyTrigger, func([]byte) bool { return true }},
	{KeyNotifyAccess, isAccess},
	{KeyErrno, isErrno},
	{KeyExitStatus, isExitStatus},
	{KeyBusError, isErrorName},
	{KeyVarlinkError, isErrorName},
}

func (f *filter) judgeValues() {
	for _, c := range checks {
		if !f.wants(c.key) {
			continue
		}
		if c.valid(f.value[c.key]) {
			f.forward(c.key)
		} else {
			f.deny(c.key, ReasonInvalid)
		}
	}
}

// isAccess knows the values of NOTIFYACCESS; systemd takes another for a wish to
// have that of the unit file back.
func isAccess(s []byte) bool {
	switch string(s) {
	case "none", "main", "exec", "all":
		return true
	}
	return false
}

const maxErrno = 4095 // systemd: ERRNO_MAX

func isErrno(s []byte) bool {
	if _, named := events.Errno(string(s)); named {
		return true
	}
	n, ok := parseNumber(s)
	return ok && n <= maxErrno
}

func isExitStatus(s []byte) bool {
	n, ok := parseNumber(s)
	return ok && n <= math.MaxUint8
}

func isErrorName(s []byte) bool { return len(s) <= maxName && isPrintable(s) }

// judgeTexts judges STATUS and the private lines. It comes last: what does not
// fit into the datagram is cut here.
func (f *filter) judgeTexts() {
	why := f.readStatus()
	f.readPrivate()
	cut := f.msg.fit()
	if f.seen.has(KeyStatus) {
		if cut.has(KeyStatus) {
			why = ReasonTrimmed
		}
		verdict := Rewritten
		if why == ReasonNone {
			verdict = Forwarded
		}
		f.rec.note(KeyStatus, verdict, why, f.msg.text[KeyStatus])
	}
	f.notePrivate(cut.has(KeyPrivate))
}

// readStatus puts the STATUS into the message and returns what was changed.
func (f *filter) readStatus() (why Reason) {
	if !f.wants(KeyStatus) {
		return ReasonNone
	}
	rule, value := f.policy.rules[KeyStatus], f.value[KeyStatus]
	f.status = f.status[:0]
	// An empty one takes the text away that is there.
	if len(value) > 0 && rule.Prefix != "" {
		f.status = append(f.status, rule.Prefix...)
		why = ReasonPrefix
	}
	limit := rule.MaxBytes
	if limit == 0 {
		limit = math.MaxInt
	}
	if !isText(value) {
		why = ReasonSanitized
	}
	var trimmed bool
	if f.status, trimmed = appendText(f.status, value, limit); trimmed {
		why = ReasonTrimmed
	}
	f.msg.keys |= 1 << KeyStatus
	f.msg.text[KeyStatus] = f.status
	return why
}

// isPrivateName reports whether a name that begins with X_ is like a key.
func isPrivateName(name []byte) bool {
	for _, c := range name {
		if c != '_' && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(name) > len("X_")
}

// readPrivate puts the private lines into the message.
func (f *filter) readPrivate() {
	if !f.seen.has(KeyPrivate) || f.denied(KeyPrivate) {
		return
	}
	f.private = f.private[:0]
	for rest := f.lines; len(rest) > 0; {
		var line []byte
		line, rest = nextLine(rest)
		key, name, value := splitLine(line)
		if key != KeyPrivate || !isPrivateName(name) {
			continue
		}
		if len(f.private) > 0 {
			f.private = append(f.private, '\n')
		}
		f.private = append(append(f.private, name...), '=')
		f.private, _ = appendText(f.private, value, math.MaxInt)
	}
	if len(f.private) > 0 {
		f.msg.keys |= 1 << KeyPrivate
		f.msg.text[KeyPrivate] = f.private
	}
}

// notePrivate notes what became of the private lines, one by one.
func (f *filter) notePrivate(cut bool) {
	if !f.seen.has(KeyPrivate) {
		return
	}
	put := f.private
	for rest := f.lines; len(rest) > 0; {
		var line []byte
		line, rest = nextLine(rest)
		key, name, value := splitLine(line)
		if key != KeyPrivate {
			continue
		}
		switch {
		case f.denied(KeyPrivate):
			f.rec.note(key, Denied, ReasonPolicy, line)
			continue
		case !isPrivateName(name):
			f.rec.note(key, Denied, ReasonInvalid, line)
			continue
		}
		var kept []byte
		kept, put, _ = bytes.Cut(put, []byte{'\n'})
		switch {
		case cut:
			f.rec.note(key, Denied, ReasonTrimmed, line)
		case !isText(value):
			f.rec.note(key, Rewritten, ReasonSanitized, kept)
		default:
			f.rec.note(key, Forwarded, ReasonNone, kept)
		}
	}
}
