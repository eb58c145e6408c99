// SPDX-License-Identifier: Apache-2.0

//go:build linux

package document

import "regexp"

// form is something that another run writes in another way.
type form struct {
	written     *regexp.Regexp
	replacement string
}

// forms are what is different in every run: times, and the numbers that a kernel
// hands out. Process 1 and process 0 (none) are always the same, and stay.
var forms = []form{
	// A clock's time, as sdtrace writes it.
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\.\d{6}\b`), "TIME"},
	{regexp.MustCompile(`\b(since|at) \d\d:\d\d:\d\d\b`), "$1 TIME"},
	{regexp.MustCompile(`\bcame every \d+(?:\.\d+)?m?s\b`), "came every DURATION"},
	// What sdtrace why says of times.
	{regexp.MustCompile(`\b\d+(?:h|m|\.\d+s|s|ms)[0-9ms.]* ago\b`), "DURATION ago"},
	{regexp.MustCompile(`\b(runs out in|next ping within) \d+(?:h|m|\.\d+s|s|ms)[0-9ms.]*`), "$1 DURATION"},
	{regexp.MustCompile(`\bfor \d+(?:h|m|\.\d+s|s|ms)[0-9ms.]*(,| of |\b)`), "for DURATION$1"},
	// Seconds since a beginning, in front of a line.
	{regexp.MustCompile(`(?m)^ *\d+\.\d{3,6}\b`), "SECONDS"},
	// How long something took: "read after 2.1ms", "sender gone for 1.8ms".
	{regexp.MustCompile(`\b(after|for) \d+(?:\.\d+)?(?:ns|µs|ms|s)(?:$|\b)`), "$1 DURATION"},
	// Whether the sender was gone when its datagram was read depends on how long that took.
	{regexp.MustCompile(`(read after DURATION), sender gone for DURATION`), "$1"},
	// A process: comm[123], and [123] in what a relay logs.
	{regexp.MustCompile(`\[(?:[2-9]|[1-9]\d+)\]`), "[PID]"},
	{regexp.MustCompile(`\b(MAINPID|MainPID|WATCHDOG_PID|SYSTEMD_EXEC_PID)=(?:[2-9]|[1-9]\d+)\b`), "$1=PID"},
	{regexp.MustCompile(`(\bcounts as from|/run/\S+ names|\btakes|\bWATCHDOG_PID is of process|\bns_pid) \d+\b`), "$1 PID"},
	{regexp.MustCompile(`\b(MAINPID=\w+) \(\d+ `), "$1 (PID "},
	// Which socket has received a message is proven or not, with tracepoints, by when it was looked for.
	{regexp.MustCompile(`\b(IGNORED|HEEDED|NO EFFECT|UNKNOWN)((?: [A-Z_]+)*) \(likely\)`), "$1$2"},
	{regexp.MustCompile(`\brun-[0-9a-zu]+\.scope\b`), "run-ID.scope"},
	{regexp.MustCompile(`/proc/(?:[2-9]|[1-9]\d+)\b`), "/proc/PID"},
	// What a relay logs of a main process.
	{regexp.MustCompile(`\b(MAINPID (?:added|rewritten)[^"\n]*) "\d+"`), `$1 "PID"`},
	{regexp.MustCompile(`\b(MAINPIDFDID (?:added|rewritten)[^"\n]*) "\d+"`), `$1 "ID"`},
	{regexp.MustCompile(`\bMAINPIDFDID=\d+`), "MAINPIDFDID=ID"},
	{regexp.MustCompile(`\b(MONOTONIC_USEC(?:=| added "| forwarded "| rewritten[^"\n]* "))\d+`), "${1}TIME"},
	// Sockets and namespaces.
	{regexp.MustCompile(`\bsocket \d+ of\b`), "socket INODE of"},
	{regexp.MustCompile(`\b40265\d{5}\b`), "NAMESPACE"},
	// The inode in the list of sockets, in front of the namespace and the file's mode.
	{regexp.MustCompile(`(?m)^(\S+ +)\d+( +(?:host|NAMESPACE) +(?:[0-7]{4}|missing|replaced) )`), "${1}INODE$2"},
	// Columns are as wide as what stands in them.
	{regexp.MustCompile(`(\S) {2,}(\S)`), "$1 $2"},
}

// Normalize replaces what no two runs have in common by names: times and
// durations, process ids, inode numbers of sockets and namespaces, and how wide
// that makes a column. Everything else is left as it is.
func Normalize(text string) string {
	for _, f := range forms {
		text = f.written.ReplaceAllString(text, f.replacement)
	}
	return text
}
