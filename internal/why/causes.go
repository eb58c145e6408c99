// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

// Certainty says how sure a finding is.
type Certainty string

// The certainties.
const (
	// Certain: what was seen leaves no other explanation.
	Certain Certainty = "certain"
	// Likely: what was seen is explained by it, and by other things less well.
	Likely Certainty = "likely"
)

// Finding is a cause, as it is seen in a case.
type Finding struct {
	// Cause is the name of the cause.
	Cause string
	Certainty
	// Because says what the cause is, Change what to change ("" for nothing); both without a full stop.
	Because, Change string
	// Note is set for what does not keep the unit from anything: it is no problem.
	Note bool
}

// cause is one that a unit can have.
type cause struct {
	name string
	// look returns nil if it is not the cause.
	look func(*Case) *Finding
	// last is set for one that says what has happened rather than why: another cause explains it.
	last bool
}

// causes are in the order in which they explain: what stands first makes what follows a consequence, or says the
// same with less.
var causes = []cause{
	{name: "receiver-does-not-read", look: receiverDoesNotRead},
	{name: "sends-too-fast", look: sendsTooFast},
	{name: "job-waits", look: jobWaits},
	{name: "not-loaded", look: notLoaded},
	{name: "main-pid-undone", look: mainPIDUndone},
	{name: "main-pid-refused", look: mainPIDRefused},
	{name: "not-delivered", look: notDelivered},
	{name: "sender-gone", look: senderGone},
	{name: "no-handler", look: noHandler},
	{name: "reload-untimed", look: reloadUntimed},
	{name: "ignored", look: ignored},
	{name: "not-heeded", look: notHeeded, last: true},
	{name: "journal", look: journalSays, last: true},
	{name: "relay-withholds", look: relayWithholds, last: true},
	{name: "start-pre", look: startPre},
	{name: "start-post", look: startPost},
	{name: "not-in-environment", look: notInEnvironment},
	{name: "no-unix-sockets", look: noUnixSockets},
	{name: "leads-nowhere", look: leadsNowhere},
	{name: "leads-elsewhere", look: leadsElsewhere},
	{name: "variable-removed", look: variableRemoved},
	{name: "child-without-variable", look: childWithoutVariable},
	{name: "container-client", look: containerClient},
	{name: "reload-unsupported", look: reloadUnsupported, last: true},
	{name: "reload-not-finished", look: reloadNotFinished, last: true},
	{name: "reload-command", look: reloadCommand},
	{name: "watchdog-of-another", look: watchdogOfAnother},
	{name: "no-pings", look: noPings, last: true},
	{name: "ping-overdue", look: pingOverdue, last: true},
	{name: "pings-too-rare", look: pingsTooRare},
	{name: "exit-before-ready", look: exitBeforeReady, last: true},
	{name: "program-cannot-notify", look: programCannotNotify, last: true},
	{name: "stop-timeout", look: stopTimeout},
	{name: "start-command", look: startCommand},
	{name: "silent", look: silentStart, last: true},
	{name: "start-timeout", look: startTimeout, last: true},
	{name: "stopping", look: stopping},
	{name: "not-stored", look: notStored},
	{name: "ready-of-another", look: readyOfAnother},
	{name: "failed-otherwise", look: failedOtherwise, last: true},
}

// Explain returns the causes that are seen in a case, the one that explains most first. None is no proof that all
// is well unless the unit is up: see [Case.Phase].
func Explain(c *Case) (found []Finding) {
	if c.Before != nil && c.IsOver() && c.Service.Result != "success" {
		if found := Explain(c.Before); len(found) > 0 && !found[0].Note {
			return found
		}
	}
	var notes []Finding
	for _, cause := range causes {
		if cause.last && len(found) > 0 {
			continue
		}
		f := cause.look(c)
		if f == nil {
			continue
		}
		f.Cause = cause.name
		if f.Note {
			notes = append(notes, *f)
		} else {
			found = append(found, *f)
		}
	}
	return append(found, notes...)
}
