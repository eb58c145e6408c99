// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// senderEnv makes this program a sender on the CPU that it names; its argument is the
// directory for its sockets.
const senderEnv = "SDTRACE_BENCH_SENDER"

// What a sender can be told to do. Each is done n times in one thread, what is sent being
// received there too.
const (
	opNotify  = "notify"  // a datagram to a notify socket
	opLong    = "long"    // one of the greatest length that is captured whole
	opOther   = "other"   // one to another socket, that does not look like a notification
	opStream  = "stream"  // a write to a stream socket
	opTCP     = "tcp"     // a send over loopback
	opGetppid = "getppid" // no socket at all
	opPace    = "pace"    // opNotify, n times a second for ten seconds
	opTour    = "tour"    // opNotify from each of n control groups in turn
)

const (
	notifyText = "READY=1\nSTATUS=Serving requests"
	otherText  = "some text that is no assignment"
	paceTime   = 10 * time.Second
)

// sender is a process that sends when it is told to.
type sender struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startSender starts a sender, as an argument of wrapper if there is one.
func startSender(dir string, cpu int, wrapper ...string) (*sender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	sockets, err := os.MkdirTemp(dir, "s")
	if err != nil {
		return nil, err
	}
	args := append(wrapper, self, sockets)
	s := &sender{cmd: exec.Command(args[0], args[1:]...)}
	s.cmd.Env = append(os.Environ(), senderEnv+"="+strconv.Itoa(cpu))
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a sender: %w", err)
	}
	return s, nil
}

// do returns the nanoseconds that each of n took. dir is what the op needs, if anything.
func (s *sender) do(op string, n int, dir ...string) (float64, error) {
	if _, err := fmt.Fprintln(s.in, op, n, strings.Join(dir, "")); err != nil {
		return 0, fmt.Errorf("telling a sender: %w", err)
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("%s: a sender ended: %w", op, err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return float64(ns) / float64(n), err
}

func (s *sender) stop() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}

// countsInstructions says that the clock of this machine does so (tier cost of vmtest/run).
func countsInstructions() bool { return os.Getenv("SDTRACE_COUNTS_INSTRUCTIONS") == "1" }

func isSender() bool { return os.Getenv(senderEnv) != "" }

// beSender is the main function of a sender, and returns its exit status.
func beSender() int {
	if err := runSender(os.Getenv(senderEnv), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "bench: sender:", err)
		return 1
	}
	return 0
}

func runSender(cpu, dir string) error {
	runtime.LockOSThread()
	n, err := strconv.Atoi(cpu)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(n)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("staying on CPU %d: %w", n, err)
	}
	ends, err := openEnds(dir)
	if err != nil {
		return err
	}
	ends.threadTime = countsInstructions()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var op, groups string
		var n int
		if _, err := fmt.Sscan(lines.Text()+" -", &op, &n, &groups); err != nil {
			return fmt.Errorf("order %q: %w", lines.Text(), err)
		}
		took, err := ends.perform(op, n, groups)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		fmt.Println(took.Nanoseconds())
	}
	return nil
}

// ends are both ends of everything a sender sends over.
type ends struct {
	datagram              int // unbound
	notify, other         int
	notifyAddr, otherAddr []byte // struct sockaddr_un
	stream, tcp           [2]int
	room                  [4096]byte
	threadTime            bool
}

func openEnds(dir string) (*ends, error) {
	var e ends
	var err error
	open := func(name string) (fd int, addr []byte) {
		path := filepath.Join(dir, name)
		addr = append([]byte{unix.AF_UNIX, 0}, path+"\x00"...)
		fd, openErr := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		err = errors.Join(err, openErr, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
		return fd, addr
	}
	e.notify, e.notifyAddr = open("notify.sock")
	e.other, e.otherAddr = open("other.sock")
	var socketErr, pairErr error
	e.datagram, socketErr = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	e.stream, pairErr = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	err = errors.Join(err, socketErr, pairErr)
	if err != nil {
		return nil, err
	}
	e.tcp, err = tcpPair()
	return &e, err
}

func tcpPair() (pair [2]int, err error) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return pair, err
	}
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(listener, 1)); err != nil {
		return pair, err
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		return pair, err
	}
	if pair[0], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return pair, err
	}
	if err := errors.Join(unix.SetsockoptInt(pair[0], unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.Connect(pair[0], address)); err != nil {
		return pair, err
	}
	pair[1], _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	return pair, err
}

func (e *ends) perform(op string, n int, groups string) (time.Duration, error) {
	once, err := e.once(op)
	if err != nil {
		return 0, err
	}
	switch op {
	case opPace:
		return e.pace(n)
	case opTour:
		return e.tour(n, groups)
	}
	began := e.now()
	for range n {
		if err := once(); err != nil {
			return 0, err
		}
	}
	return e.now() - began, nil
}

// now is the time, or that of this thread alone.
func (e *ends) now() time.Duration {
	clock := int32(unix.CLOCK_MONOTONIC)
	if e.threadTime {
		clock = unix.CLOCK_THREAD_CPUTIME_ID
	}
	var now unix.Timespec
	if err := unix.ClockGettime(clock, &now); err != nil {
		panic(err) // every kernel has both
	}
	return time.Duration(now.Nano())
}

func (e *ends) once(op string) (func() error, error) {
	switch op {
	case opNotify, opPace, opTour:
		text := []byte(notifyText)
		return func() error { return e.exchange(e.datagram, e.notify, text, e.notifyAddr) }, nil
	case opLong:
		text := bytes.Repeat([]byte("X_LONG=1\n"), 4096/9)
		return func() error { return e.exchange(e.datagram, e.notify, text, e.notifyAddr) }, nil
	case opOther:
		text := []byte(otherText)
		return func() error { return e.exchange(e.datagram, e.other, text, e.otherAddr) }, nil
	case opStream:
		text := []byte(otherText)
		return func() error { return e.exchange(e.stream[0], e.stream[1], text, nil) }, nil
	case opTCP:
		text := []byte(otherText)
		return func() error { return e.exchange(e.tcp[0], e.tcp[1], text, nil) }, nil
	case opGetppid:
		return func() error { unix.Getppid(); return nil }, nil
	}
	return nil, errors.New("no such operation")
}

// exchange sends and receives without the help of Go's scheduler, which would cost more.
func (e *ends) exchange(from, to int, text, addr []byte) error {
	var at uintptr
	if addr != nil {
		at = uintptr(unsafe.Pointer(&addr[0]))
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(from), uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)), 0, at, uintptr(len(addr)))
	if errno != 0 || int(n) != len(text) {
		return fmt.Errorf("sending: %w", errno)
	}
	n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(to), uintptr(unsafe.Pointer(&e.room[0])), uintptr(len(e.room)), 0, 0, 0)
	if errno != 0 || int(n) != len(text) {
		return fmt.Errorf("receiving: %w", errno)
	}
	return nil
}

// pace sends rate datagrams a second, in bursts of a hundredth of a second.
func (e *ends) pace(rate int) (time.Duration, error) {
	once, err := e.once(opNotify)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for sent := 0; sent < rate*int(paceTime/time.Second); {
		due := int(float64(rate) * (time.Since(began) + 10*time.Millisecond).Seconds())
		for ; sent < min(due, rate*int(paceTime/time.Second)); sent++ {
			if err := once(); err != nil {
				return 0, err
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began), nil
}

// tour counts the time of sending alone, not that of moving to the next control group.
func (e *ends) tour(n int, groups string) (took time.Duration, err error) {
	once, err := e.once(opNotify)
	if err != nil {
		return 0, err
	}
	pid := []byte(strconv.Itoa(os.Getpid()))
	for i := range n {
		if err := os.WriteFile(filepath.Join(groups, groupName(i), "cgroup.procs"), pid, 0); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := once(); err != nil {
			return 0, err
		}
		took += time.Since(began)
	}
	return took, os.WriteFile(filepath.Join(groups, "cgroup.procs"), pid, 0)
}
