// SPDX-License-Identifier: Apache-2.0

package why_test

import "github.com/sdtrace/sdtrace/internal/why"

// scenario is a service that hangs, has failed, or does something that its author did not mean.
type scenario struct {
	// name is the unit's, title the heading in docs/why.md, "" for what does not stand there.
	name, title string
	// service are the lines of the unit's [Service]. %P is the program: perl that runs what program says.
	service []string
	program string
	// install are lines of [Unit].
	unit []string
	// in is the state in which the cause has to be found; then is what is done in that state before, if anything:
	// systemctl with this argument; afterwards is the state that comes of that, if it has to be awaited.
	in, then, afterwards string
	// since and before are the versions of systemd for which it is so; 0: no bound. everywhere is set where the oldest or
	// the newest one could answer in another way; the others are played with two versions in between.
	since, before int
	everywhere    bool

	// cause and certainty ("": either) are what has to be found, with all of the words in the sentence and what to change.
	cause     string
	certainty why.Certainty
	words     []string
	// well is set if the unit is healthy all the same, and the finding a note.
	well bool
}

const loop = "sleep 1 while 1;"

var scenarios = []scenario{
	// Nothing was sent.
	{
		name: "cleared", title: "NOTIFY_SOCKET was dropped before the program was executed",
		service: []string{"ExecStart=/usr/bin/env -i /usr/bin/sleep infinity"},
		cause:   "not-in-environment", certainty: why.Certain, words: []string{"sleep", "without NOTIFY_SOCKET", "/usr/bin/env"},
	},
	{
		name: "unset", title: "UnsetEnvironment= takes it away",
		service: []string{"UnsetEnvironment=NOTIFY_SOCKET", "ExecStart=/usr/bin/sleep infinity"},
		cause:   "not-in-environment", certainty: why.Certain, words: []string{"UnsetEnvironment=NOTIFY_SOCKET"},
	},
	{
		name: "by-sudo", title: "sudo drops it",
		service: []string{"ExecStart=/usr/bin/sudo -u web /usr/bin/sleep infinity"},
		cause:   "child-without-variable", certainty: why.Likely, words: []string{"sudo", "has dropped NOTIFY_SOCKET", "sleep", "User="},
	},
	{
		name: "by-su", title: "su drops it",
		service: []string{"ExecStart=/usr/bin/su - web -s /bin/sh -c \"exec sleep infinity\""},
		cause:   "child-without-variable", certainty: why.Likely, words: []string{"su[", "has dropped NOTIFY_SOCKET", "sleep"},
	},
	{
		name: "no-address", title: "The program sends without an address",
		service: []string{"ExecStart=%P"},
		program: `socket(my $socket, AF_UNIX, SOCK_DGRAM, 0); send($socket, "READY=1", 0); ` + loop,
		cause:   "not-delivered", certainty: why.Certain, words: []string{"ENOTCONN", "no address was given"},
	},
	{
		name: "removed", everywhere: true, title: "The program has removed NOTIFY_SOCKET from its environment",
		service: []string{"ExecStart=%P"},
		program: `delete $ENV{NOTIFY_SOCKET}; ` + loop,
		cause:   "variable-removed", certainty: why.Likely, words: []string{"removed NOTIFY_SOCKET", "without having said READY=1"},
	},
	{
		name: "unaware", title: "The program is none that notifies",
		service: []string{"ExecStart=/usr/bin/sleep infinity"},
		cause:   "program-cannot-notify", certainty: why.Likely, words: []string{"/usr/bin/sleep", "not a program that notifies", "Type=exec"},
	},
	{
		name: "forbidden-family", title: "RestrictAddressFamilies= forbids the socket",
		service: []string{"RestrictAddressFamilies=AF_INET", "ExecStart=%P"}, before: 258, // which loads libseccomp when it is there
		program: `notify("READY=1"); ` + loop,
		cause:   "no-unix-sockets", certainty: why.Certain, words: []string{"RestrictAddressFamilies="},
	},
	{
		name: "elsewhere", title: "NOTIFY_SOCKET leads to somebody else",
		service: []string{"Environment=NOTIFY_SOCKET=/shared/manager.sock", "ExecStart=%P"},
		program: loop,
		cause:   "leads-elsewhere", certainty: why.Certain, words: []string{"does not lead to the service manager"},
	},

	{
		name: "no-path", title: "NOTIFY_SOCKET is no address",
		service: []string{"Environment=NOTIFY_SOCKET=run/systemd/notify", `ExecStart=/bin/sh -c "systemd-notify --ready; exec sleep infinity"`},
		cause:   "leads-nowhere", certainty: why.Certain, words: []string{"NOTIFY_SOCKET=run/systemd/notify is no address", "a path from / on"},
	},

	// Not the main process.
	{
		name: "child", everywhere: true, title: "A child says it, and NotifyAccess= is main",
		service: []string{"ExecStart=%P"},
		program: `unless (fork) { notify("READY=1"); ` + loop + ` } ` + loop,
		cause:   "ignored", certainty: why.Certain, words: []string{"READY=1 of perl", "not the main process perl", "NotifyAccess=all"},
	},
	{
		name: "script", title: "systemd-notify in a script of an ordinary user",
		service: []string{"User=web", `ExecStart=/bin/sh -c "sleep 1; systemd-notify --ready; sleep infinity"`},
		cause:   "ignored", certainty: why.Certain, words: []string{"READY=1 of systemd-notify", "not the main process sh", "EPERM", "NotifyAccess=all"},
	},

	// Not there, or not allowed.
	{
		name: "chrooted", title: "The program has changed its root directory",
		service: []string{"ExecStart=%P"},
		program: `chroot("/tmp"); chdir("/"); notify("READY=1"); ` + loop,
		cause:   "not-delivered", certainty: why.Certain, words: []string{"ENOENT", "/tmp", "bind"},
	},
	{
		name: "closed-directory", title: "Its user may not search a directory on the way",
		service: []string{"User=web", "TemporaryFileSystem=/run/systemd:mode=0700", "ExecStart=%P"},
		program: `notify("READY=1"); ` + loop,
		cause:   "not-delivered", certainty: why.Certain, words: []string{"EACCES", "uid 1000 may not search the directory /run/systemd"},
	},
	{
		name: "closed-directory-silent", title: "The same before it has tried",
		service: []string{"User=web", "TemporaryFileSystem=/run/systemd:mode=0700", "ExecStart=%P"},
		program: loop,
		cause:   "leads-nowhere", certainty: why.Certain, words: []string{"cannot send READY=1", "uid 1000 may not search the directory /run/systemd"},
	},

	{
		name: "abstract", title: "An abstract socket, and a network namespace of its own",
		service: []string{"PrivateNetwork=yes", "Environment=NOTIFY_SOCKET=@sdt-notify", "ExecStart=%P"},
		program: `socket(my $socket, AF_UNIX, SOCK_DGRAM, 0); send($socket, "READY=1", 0, pack_sockaddr_un("\0sdt-notify")); ` + loop,
		cause:   "not-delivered", certainty: why.Certain,
		words: []string{
			"could not send READY=1", "ECONNREFUSED", "an abstract socket is there in its own network namespace alone", "PrivateNetwork=",
		},
	},
	{
		name: "stream", title: "The socket there is a stream socket",
		service: []string{"Environment=NOTIFY_SOCKET=/run/stream.sock", "ExecStart=%P"},
		program: `socket(my $socket, AF_UNIX, SOCK_STREAM, 0); bind($socket, pack_sockaddr_un($ENV{NOTIFY_SOCKET})); listen($socket, 1);
notify("READY=1"); ` + loop,
		cause: "not-delivered", certainty: why.Certain, words: []string{"EPROTOTYPE", "another type than a datagram socket"},
	},
	{
		name: "closed-socket", title: "Who had made the socket is over",
		service: []string{"Environment=NOTIFY_SOCKET=/run/closed.sock", "ExecStart=%P"},
		program: `socket(my $socket, AF_UNIX, SOCK_DGRAM, 0); bind($socket, pack_sockaddr_un($ENV{NOTIFY_SOCKET})); close($socket);
notify("READY=1"); ` + loop,
		cause: "not-delivered", certainty: why.Certain, words: []string{"ECONNREFUSED", "nobody reads there"},
	},

	// What it says.
	{
		name: "misspelt", everywhere: true, title: "It is spelt in another way",
		service: []string{"ExecStart=%P"},
		program: `notify("READY=true"); ` + loop,
		cause:   "ignored", certainty: why.Certain, words: []string{"READY=true", "no effect", "only READY=1"},
	},
	{
		name: "with-nul", title: "There is a NUL byte in it",
		service: []string{"ExecStart=%P"},
		program: `notify("READY=1\0STATUS=Up"); ` + loop,
		cause:   "ignored", certainty: why.Certain, words: []string{"NUL"},
	},

	// The main process.
	{
		name: "wrong-main", title: "MAINPID= names a process that cannot be it",
		service: []string{"ExecStart=%P"},
		program: `notify("MAINPID=1"); ` + loop,
		cause:   "main-pid-refused", certainty: why.Certain, words: []string{"MAINPID=1", "was not taken"},
	},
	{
		name: "taken-back", everywhere: true, title: "PIDFile= takes MAINPID= back",
		service: []string{"NotifyAccess=all", "PIDFile=/run/taken-back.pid", "ExecStart=%P", `ExecReload=/bin/sh -c "kill -HUP $MAINPID; sleep 0.2"`},
		program: `sub file { open(my $f, ">", "/run/taken-back.pid"); print $f "$_[0]\n"; close $f }
$SIG{HUP} = sub { my $child = fork; unless ($child) { ` + loop + ` } notify("MAINPID=$child"); };
file($$); notify("READY=1"); ` + loop,
		in: "running", then: "reload", afterwards: "running",
		// Certain or not, by what was read first.
		cause: "main-pid-undone", words: []string{"MAINPID=", "undone", "/run/taken-back.pid"},
	},

	{
		name: "own-number", title: "MAINPID= is the number in another pid namespace",
		service: []string{"NotifyAccess=all", "ExecStart=/usr/bin/unshare --pid --fork %P"},
		program: `unless (fork) { ` + loop + ` } notify("MAINPID=2"); ` + loop,
		cause:   "main-pid-refused", certainty: why.Certain, words: []string{"MAINPID=2", "was not taken", "pid namespace"},
	},

	// Reloading.
	{
		name: "untimed", title: "A reload without MONOTONIC_USEC=",
		service: []string{"Type=notify-reload", "ExecStart=%P"}, since: 253, everywhere: true,
		program: `$SIG{HUP} = sub { notify("RELOADING=1"); notify("READY=1") }; notify("READY=1"); ` + loop,
		in:      "running", then: "reload",
		cause: "reload-untimed", certainty: why.Certain, words: []string{"RELOADING=1", "MONOTONIC_USEC= in the same message", "TimeoutStartSec="},
	},
	{
		name: "apart", title: "RELOADING=1 and MONOTONIC_USEC= in two messages",
		service: []string{"Type=notify-reload", "ExecStart=%P"}, since: 253, everywhere: true,
		program: `$SIG{HUP} = sub { notify("RELOADING=1"); notify("MONOTONIC_USEC=" . usec()) }; notify("READY=1"); ` + loop,
		in:      "running", then: "reload",
		cause: "reload-untimed", certainty: why.Certain, words: []string{"RELOADING=1", "here they are two messages"},
	},
	{
		name: "unfinished", title: "A reload that READY=1 does not end",
		service: []string{"ExecStart=%P"},
		program: `notify("READY=1"); notify("RELOADING=1"); ` + loop,
		cause:   "reload-not-finished", certainty: why.Likely, words: []string{"RELOADING=1", "not READY=1 since", "READY=1 when the reload is over"},
	},
	{
		name: "deaf", title: "A reload that the program says nothing about",
		service: []string{"Type=notify-reload", "ExecStart=%P"}, since: 253, everywhere: true,
		program: `$SIG{HUP} = sub { }; notify("READY=1"); ` + loop,
		in:      "running", then: "reload",
		cause: "reload-unsupported", certainty: why.Likely, words: []string{"has been told to reload", "has not said RELOADING=1", "ExecReload="},
	},
	{
		name: "no-handler", title: "READY=1 before there is a handler of the reload signal",
		service: []string{"Type=notify-reload", "ExecStart=%P"}, since: 262, everywhere: true,
		program: `notify("READY=1"); ` + loop,
		cause:   "no-handler", certainty: why.Likely, words: []string{"neither handles nor blocks SIGHUP"},
	},

	// The watchdog.
	{
		name: "no-pings", everywhere: true, title: "Pings that never come",
		service: []string{"WatchdogSec=1", "ExecStart=%P"},
		program: `notify("READY=1"); ` + loop, in: "failed",
		cause: "no-pings", certainty: why.Certain, words: []string{"was killed because no WATCHDOG=1 came within WatchdogSec=1.0s"},
	},
	{
		name: "no-pings-yet", // again and again, until one is seen while it lives
		unit: []string{"StartLimitIntervalSec=0"}, service: []string{"WatchdogSec=4", "Restart=always", "ExecStart=%P"},
		program: `notify("READY=1"); ` + loop, in: "running",
		cause: "no-pings", words: []string{"WATCHDOG=1", "WatchdogSec=4.0s"},
	},
	{
		name: "hot-restart", title: "A gap in the pings at a hot restart",
		service: []string{"WatchdogSec=10", "NotifyAccess=all", "ExecStart=%P"},
		program: `notify("READY=1"); for (1..2) { sleep 1; notify("WATCHDOG=1") }
my $new = fork; if ($new) { notify("MAINPID=$new"); sleep 1; exit } ` + loop, in: "failed",
		cause: "ping-overdue", certainty: why.Likely, words: []string{"no ping came within WatchdogSec=10s", "the main process is ", "which has not pinged"},
	},
	{
		name: "removed-after", title: "NOTIFY_SOCKET is gone after READY=1, and with it the pings",
		service: []string{"WatchdogSec=1h", "ExecStart=%P"},
		program: `notify("READY=1"); delete $ENV{NOTIFY_SOCKET}; ` + loop,
		cause:   "variable-removed", certainty: why.Likely, words: []string{"said READY=1 and then no WATCHDOG=1", "removed NOTIFY_SOCKET"},
	},
	{
		name: "of-another", title: "WATCHDOG_PID is another process",
		service: []string{"WatchdogSec=1h", "NotifyAccess=all", `ExecStart=/bin/sh -c "%P; true"`},
		program: `notify("READY=1"); ` + loop,
		cause:   "watchdog-of-another", certainty: why.Likely, words: []string{"WATCHDOG_PID=", "perl", "exec in the shell script"},
	},

	// For whom it counts.
	{
		name: "in-a-scope", everywhere: true, title: "The sender is in another unit",
		service: []string{"NotifyAccess=all", "ExecStart=%P"},
		program: `unless (fork) { exec("systemd-run", "--quiet", "--scope", "perl", "-I/shared", "-MNotify", "-e", 'notify("READY=1"); ` + loop + `') } ` + loop,
		cause:   "ignored", certainty: why.Certain, words: []string{"READY=1 of perl", "which is no service"},
	},

	{
		name: "unstored", title: "A file descriptor that is not stored",
		service: []string{"ExecStart=/roles " + storeRole},
		cause:   "not-stored", certainty: why.Certain, words: []string{"FileDescriptorStoreMax=0"},
	},

	// What the service manager does before and after.
	{
		name: "preparing", title: "ExecStartPre= does not end",
		service: []string{"ExecStartPre=/usr/bin/sleep infinity", "ExecStart=%P"}, program: loop,
		cause: "start-pre", certainty: why.Certain, words: []string{"ExecStartPre=", "sleep"},
	},
	{
		name: "finishing", title: "ExecStartPost= does not end",
		service: []string{"ExecStart=%P", "ExecStartPost=/usr/bin/sleep infinity"}, program: `notify("READY=1"); ` + loop,
		cause: "start-post", certainty: why.Certain, words: []string{"ExecStartPost=", "sleep"},
	},
	{
		name: "queued", title: "Another unit has to become ready first",
		unit: []string{"After=unaware.service", "Wants=unaware.service"}, service: []string{"ExecStart=%P"}, program: loop,
		cause: "job-waits", certainty: why.Certain, words: []string{"has not begun to start", "unaware.service"},
	},
	{
		name: "short", everywhere: true, title: "The main process ends before READY=1",
		service: []string{"ExecStart=/usr/bin/true"},
		cause:   "exit-before-ready", certainty: why.Certain, words: []string{"status 0", "before READY=1"},
	},
	{
		name: "not-executable", title: "The program cannot be executed",
		service: []string{"ExecStart=/usr/bin/not-there"},
		cause:   "exit-before-ready", certainty: why.Certain, words: []string{"status 203", "cannot be executed"},
	},
	{
		name: "late", title: "READY=1 does not come in time",
		service: []string{"TimeoutStartSec=1", "ExecStart=%P"}, program: loop,
		cause: "start-timeout", certainty: why.Certain, words: []string{"did not say READY=1 within TimeoutStartSec=1.0s"},
	},

	// Stopping.
	{
		name: "stubborn", title: "It does not end",
		service: []string{"TimeoutStopSec=1h", "ExecStart=%P"}, program: `$SIG{TERM} = "IGNORE"; notify("READY=1"); ` + loop,
		in: "running", then: "stop",
		cause: "stopping", certainty: why.Certain, words: []string{"stop-sigterm", "perl", "TimeoutStopSec="},
	},
	{
		name: "stopped-by-helper", title: "A helper's STOPPING=1 stops the service",
		service: []string{"TimeoutStopSec=1h", "NotifyAccess=all", "ExecStart=%P"},
		program: `$SIG{TERM} = "IGNORE"; notify("READY=1"); unless (fork) { notify("STOPPING=1"); ` + loop + ` } ` + loop,
		cause:   "stopping", certainty: why.Certain, words: []string{"has said STOPPING=1", "not the main process"},
	},

	{
		name: "cut-short", title: "STOPPING=1 begins the time for the stop",
		service: []string{"TimeoutStopSec=1", "ExecStart=%P"},
		program: `$SIG{TERM} = "IGNORE"; notify("READY=1"); sleep 1; notify("STOPPING=1"); ` + loop,
		cause:   "stop-timeout", certainty: why.Likely, words: []string{"said STOPPING=1", "TimeoutStopSec=1.0s", "EXTEND_TIMEOUT_USEC="},
	},

	// Nothing is wrong, and something is worth to know.
	{
		name: "claimed", title: "A helper says READY=1 in the main process's name", well: true,
		service: []string{`ExecStart=/bin/sh -c "sleep 1; /roles ` + claimRole + ` $$$$ & exec sleep infinity"`},
		cause:   "ready-of-another", certainty: why.Certain, words: []string{"in the name of its main process sleep", "SCM_CREDENTIALS"},
	},
	{
		name: "ready-of-helper", title: "A helper says READY=1 for the service", well: true,
		service: []string{"NotifyAccess=all", `ExecStart=/bin/sh -c "%P & sleep infinity"`},
		program: `notify("READY=1"); ` + loop,
		cause:   "ready-of-another", certainty: why.Likely, words: []string{"perl", "not its main process sh"},
	},
}
