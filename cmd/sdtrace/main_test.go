// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sdtrace":              main,
		"sdtrace-unprivileged": unprivileged,
		"sdtrace-without-btf":  withoutBTF,
		"sdtrace-locked-down":  lockedDown,
		"sd-enemy":             sdEnemy,
		"sd-send":              sdSend,
		"sd-send-notify":       sdSendNotify,
		"sd-send-until":        sdSendUntil,
	})
}

// The scripts read like a session at a shell. Beside testscript's own commands
// there are
//
//	listen SOCKET         bind a datagram socket and read what comes
//	hold SOCKET           bind a datagram socket and read nothing
//	close SOCKET          close such a socket
//	await SOCKET TEXT     wait until a message with TEXT came to a listening socket
//	await-line FILE TEXT  wait until something in FILE matches TEXT
//	fits-schema FILE      hold every line of FILE against the JSON Schema
//	sd-send [-c] SOCKET [PAYLOAD …]   a sender of its own process; -c connects
//	sd-send-notify [PAYLOAD …]        the same, to $NOTIFY_SOCKET
//	sd-send-until [-c] FILE TEXT SOCKET PAYLOAD   one that sends until something in FILE matches TEXT
//
// and the conditions [fentry], of the backend, and [misses], of a kernel that skips
// programs in emulation. Those in once capture nothing. The others run with the machine's
// backend, those in kernel on each kernel, as what is printed depends on it.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	t.Run("once", func(t *testing.T) {
		vmtest.Natively(t, "the command line alone")
		runScripts(t, "testdata/script/once", "")
	})
	// The first is fentry, where it attaches: the other one is what this machine itself tries.
	backend, _, _ := strings.Cut(os.Getenv("SDTRACE_BACKENDS"), ",")
	if backend == "" {
		backend = "tracepoint"
	}
	t.Run(backend, func(t *testing.T) { runScripts(t, "testdata/script/kernel", backend) })
	t.Run("capture", func(t *testing.T) {
		vmtest.Natively(t, "how a capture begins and ends, and the names of containers")
		runScripts(t, "testdata/script/capture", backend)
	})
	t.Run("all of "+backend, func(t *testing.T) {
		vmtest.OnlyOn(t, "what is printed of a capture, with all that trampolines can tell", "6.12-amd64")
		runScripts(t, "testdata/script/trampolines", backend)
	})
}

func runScripts(t *testing.T, dir, backend string) {
	params := testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			env.Setenv("BACKEND", backend)
			env.Setenv("CGROUP", cgroupRoot(t))
			env.Setenv("LOST", lost())
			sockets := &listeners{byPath: map[string]*listener{}}
			env.Values[socketsKey{}] = sockets
			env.Defer(sockets.close)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "fentry":
				return backend == "fentry", nil
			case "misses":
				return lost() != "0", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"listen":      listen,
			"hold":        hold,
			"close":       closeSocket,
			"await":       awaitMessage,
			"await-line":  awaitLine,
			"fits-schema": fitsSchema,
		},
	}
	if backend == "fentry" {
		testscript.RunT(oneByOne{t}, params)
	} else {
		testscript.Run(t, params)
	}
}

// oneByOne runs no two scripts at a time: when a capture begins or ends, another one loses a send
// that is under way (docs/design.md).
type oneByOne struct{ *testing.T }

// Parallel does nothing.
func (oneByOne) Parallel() {}

// Run runs a script.
func (o oneByOne) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) { f(oneByOne{t}) })
}

// Verbose reports whether the log is shown of what passes, too.
func (oneByOne) Verbose() bool { return testing.Verbose() }

// lost is what a summary says of losses: an emulated kernel may miss a datagram that is none of the
// script's.
func lost() string {
	if vmtest.MayMiss() {
		return "[0-9]+"
	}
	return "0"
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	t.Fatal("cgroup v2 is not mounted")
	return ""
}

type socketsKey struct{}

// listeners are the sockets of one script.
type listeners struct {
	mu     sync.Mutex
	byPath map[string]*listener
}

type listener struct {
	conn     *net.UnixConn
	messages chan string
}

func (l *listeners) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, listener := range l.byPath {
		_ = listener.conn.Close()
	}
}

func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listen SOCKET")
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socketPath(ts, args[0]), Net: "unixgram"})
	ts.Check(err)
	l := &listener{conn: conn, messages: make(chan string, 1024)}
	sockets := ts.Value(socketsKey{}).(*listeners)
	sockets.mu.Lock()
	sockets.byPath[args[0]] = l
	sockets.mu.Unlock()
	go func() {
		defer close(l.messages)
		buf := make([]byte, 8192)
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			l.messages <- string(buf[:n])
		}
	}()
}

func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold SOCKET")
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socketPath(ts, args[0]), Net: "unixgram"})
	ts.Check(err)
	sockets := ts.Value(socketsKey{}).(*listeners)
	sockets.mu.Lock()
	sockets.byPath[args[0]] = &listener{conn: conn}
	sockets.mu.Unlock()
}

func closeSocket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: close SOCKET")
	}
	sockets := ts.Value(socketsKey{}).(*listeners)
	sockets.mu.Lock()
	defer sockets.mu.Unlock()
	l := sockets.byPath[args[0]]
	if l == nil {
		ts.Fatalf("%s is not held", args[0])
	}
	ts.Check(l.conn.Close())
}

func socketPath(ts *testscript.TestScript, name string) string {
	if strings.HasPrefix(name, "@") {
		return name
	}
	return ts.MkAbs(name)
}

func awaitMessage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await SOCKET TEXT")
	}
	l := ts.Value(socketsKey{}).(*listeners).byPath[args[0]]
	if l == nil {
		ts.Fatalf("nobody listens on %s", args[0])
	}
	closed := false
	came := await.Holds(func() bool {
		select {
		case message, ok := <-l.messages:
			closed = !ok
			return closed || strings.Contains(message, args[1])
		default:
			return false
		}
	})
	if closed || !came {
		ts.Fatalf("no %q came to %s", args[1], args[0])
	}
}

func awaitLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await-line FILE TEXT")
	}
	file, text := ts.MkAbs(args[0]), regexp.MustCompile(args[1])
	if !await.Holds(func() bool { return fileMatches(file, text) }) {
		ts.Fatalf("nothing in %s matches %q", args[0], args[1])
	}
}

// fileMatches reports whether something in a file, which may not be there yet, matches.
func fileMatches(file string, text *regexp.Regexp) bool {
	content, err := os.ReadFile(file)
	return err == nil && text.Match(content)
}

func fitsSchema(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fits-schema FILE")
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(events.Schema))
	ts.Check(err)
	compiler := jsonschema.NewCompiler()
	ts.Check(compiler.AddResource("schema.json", document))
	schema, err := compiler.Compile("schema.json")
	ts.Check(err)
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile(args[0]), "\n"), "\n")
	for i, line := range lines {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			ts.Fatalf("line %d of %s: %v\n%s", i+1, args[0], err, line)
		}
	}
}

// sdSend sends its arguments, Go-quoted without the quotes, one datagram each.
func sdSend() {
	args := os.Args[1:]
	connect := args[0] == "-c"
	if connect {
		args = args[1:]
	}
	if err := send(args[0], args[1:], connect); err != nil {
		fmt.Fprintln(os.Stderr, "sd-send:", err)
		os.Exit(1)
	}
}

func sdSendNotify() {
	if err := send(os.Getenv("NOTIFY_SOCKET"), os.Args[1:], false); err != nil {
		fmt.Fprintln(os.Stderr, "sd-send-notify:", err)
		os.Exit(1)
	}
}

func sdSendUntil() {
	args := os.Args[1:]
	connect := args[0] == "-c"
	if connect {
		args = args[1:]
	}
	file, text, address, payload := args[0], regexp.MustCompile(args[1]), args[2], args[3]
	came := await.Holds(func() bool {
		if err := send(address, []string{payload}, connect); err != nil {
			fmt.Fprintln(os.Stderr, "sd-send-until:", err)
			os.Exit(1)
		}
		return fileMatches(file, text)
	})
	if !came {
		fmt.Fprintln(os.Stderr, "sd-send-until: no such line")
		os.Exit(1)
	}
}

func send(address string, payloads []string, connect bool) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := &unix.SockaddrUnix{Name: address}
	if connect {
		if err := unix.Connect(fd, to); err != nil {
			return err
		}
	}
	for _, quoted := range payloads {
		payload, err := strconv.Unquote(`"` + quoted + `"`)
		if err != nil {
			return err
		}
		if connect {
			_, err = unix.Write(fd, []byte(payload))
		} else {
			err = unix.Sendto(fd, []byte(payload), 0, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func TestASecondSignalEndsACaptureThatNobodyReads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	room, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(t.TempDir(), "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd := exec.Command("sdtrace", "--socket", address, "-o", "json")
	cmd.Stdout = writer
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stderr); !strings.Contains(lines.Text(), "capturing"); {
		if !lines.Scan() {
			t.Fatal("sdtrace does not capture:", cmd.Wait())
		}
	}
	message := strings.Repeat("STATUS=x\\n", room/len("STATUS=x\n"))
	if err := send(address, []string{message, message}, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	await.Until(t, "the pipe is full", func() bool {
		waiting, err := unix.IoctlGetInt(int(reader.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		return waiting >= room
	})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await.Until(t, "sdtrace ends", func() bool {
		_ = cmd.Process.Signal(os.Interrupt) // again and again: two at once are one
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("sdtrace ended with %v, want by SIGINT", err)
	}
}

func unprivileged() {
	if err := unix.Setresgid(65534, 65534, 65534); err != nil {
		panic(err)
	}
	if err := unix.Setresuid(65534, 65534, 65534); err != nil {
		panic(err)
	}
	main()
}

// hide covers a directory with an empty one, for this process alone.
func hide(dir string) {
	runtime.LockOSThread() // only this thread sees it
	err := errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", dir, "tmpfs", 0, ""),
	)
	if err != nil {
		panic(err)
	}
}

func withoutBTF() {
	hide("/sys/kernel/btf")
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// lockedDown is what a kernel in lockdown shows of it; none can be had here.
func lockedDown() {
	hide("/sys/kernel/security")
	err := os.WriteFile(filepath.Join("/sys/kernel/security", "lockdown"), []byte("none integrity [confidentiality]\n"), 0o444)
	if err != nil {
		panic(err)
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
