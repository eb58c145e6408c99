// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"io"
	"testing"
)

// Job control is as if the relay were not there.
func TestATerminalStopsAndEndsACommandBehindARelay(t *testing.T) {
	address, host := bindSocket(t, t.TempDir())
	go func() { _, _ = io.Copy(io.Discard, host) }()
	term := openTerminal(t, 200, "NOTIFY_SOCKET="+address+" bash --norc --noprofile -i")
	typeIn := func(keys string, more ...string) { term.tmux(append([]string{"send-keys", keys}, more...)...) }
	// What is waited for is not what stands in the command line: perl puts it together.
	program := func(signal, then string) string {
		return `perl -e '$| = 1; $SIG{` + signal + `} = sub { ` + then + ` }; system("sd-send-notify", "READY=1"); ` +
			`print "be", "gun ` + signal + `\n"; sleep 1000 while 1'`
	}
	typeIn("sdtrace relay -- "+program("CONT", `print "conti", "nued\n"`), "Enter")
	term.await("begun CONT")
	typeIn("C-z")
	term.await("Stopped")
	typeIn("fg", "Enter")
	term.await("continued")
	typeIn("C-c")
	typeIn("echo st''atus $?", "Enter")
	term.await("status 130")
	// A session of its own gets no signal of the terminal's: the relay passes it on.
	typeIn("sdtrace relay -- setsid -w "+program("INT", `print "trap", "ped\n"; exit 7`), "Enter")
	term.await("begun INT")
	typeIn("C-c")
	term.await("trapped")
	typeIn("echo st''atus $?", "Enter")
	term.await("status 7")
}
