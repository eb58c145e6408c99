// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"
)

// Rule is one rule of the table, as docs/verdict.md lists it. Of several rules that are about the
// same line the first one that holds counts.
type Rule struct {
	// ID is the rule's name. Several rules share one when they are the same decision of systemd's.
	ID string
	// Key is the assignment that it is about, or several with blanks in between; "" for any.
	Key string
	// Since and Before bound the versions of systemd for which it holds; 0: no bound.
	Since, Before int
	// Outcome, Reason and Cure are as in [Verdict], with $words in Reason for what differs.
	Outcome      Outcome
	Reason, Cure string
	// Source is the function of systemd that it stands in.
	Source string
	// Whole is set for a rule about a whole datagram.
	Whole bool
}

// Holds reports whether the rule is there in a version of systemd.
func (r *Rule) Holds(version int) bool {
	return version >= r.Since && (r.Before == 0 || version < r.Before)
}

// firstOf is the version since when one of the keys is read; 0 for any.
func firstOf(keys string) (since int) {
	for i, key := range strings.Fields(keys) {
		if i == 0 || introduced[key] < since {
			since = introduced[key]
		}
	}
	return since
}

// Rules returns the table in order.
func Rules() []Rule {
	var all []Rule
	for i, r := range slices.Concat(reception, assignments) {
		all = append(all, Rule{
			ID: r.id, Key: r.key, Since: max(r.since, firstOf(r.key)), Before: r.before, Outcome: r.outcome, Reason: r.reason, Cure: r.cure,
			Source: r.source, Whole: i < len(reception),
		})
	}
	return all
}
