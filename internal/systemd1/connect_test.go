// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd1

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestTheVersionIsTheFirstNumber(t *testing.T) {
	for text, want := range map[string]int{
		"247.3-7+deb11u8": 247, "252": 252, "257.13-1~deb13u1": 257, "v258~rc1": 258, "262~devel": 262,
	} {
		if got, err := parseVersion(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "v", "devel"} {
		if got, err := parseVersion(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// Who listens but does not answer must not hold up the caller beyond the context.
func TestAServiceManagerThatDoesNotAnswerIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "private"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Connect(ctx, os.Getpid(), events.Address(filepath.Join(dir, "notify")))
		done <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if err := await.Receive(t, "the end of the attempt", done); err == nil {
		t.Error("it has connected to nobody")
	}
}

func TestWhereNobodyListensTheErrorSaysSo(t *testing.T) {
	_, err := Connect(await.Context(t), os.Getpid(), events.Address(filepath.Join(t.TempDir(), "notify")))
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}

// A connection can end at any byte of an answer: the service manager is killed, or the capture ends.
func TestAConnectionThatEndsWithinAnAnswerIsAnError(t *testing.T) {
	all := &server{most: math.MaxInt}
	if err := connectTo(t, all); err != nil {
		t.Fatal(err)
	}
	for n := range all.said {
		if err := connectTo(t, &server{most: n}); err == nil {
			t.Errorf("connected after %d of %d bytes", n, all.said)
		}
	}
}

// Who is asked may be anybody in a container.
func TestASignalOfABusThatIsNotThereIsNoHarm(t *testing.T) {
	for _, name := range []string{"NameLost", "NameAcquired"} {
		for _, body := range [][]any{nil, {uint32(1)}, {"org.freedesktop.systemd1"}} {
			signal := dbus.Message{
				Type: dbus.TypeSignal,
				Headers: map[dbus.HeaderField]dbus.Variant{
					dbus.FieldSender:    dbus.MakeVariant("org.freedesktop.DBus"),
					dbus.FieldPath:      dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/DBus")),
					dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.DBus"),
					dbus.FieldMember:    dbus.MakeVariant(name),
				},
				Body: body,
			}
			if body != nil {
				signal.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
			}
			if err := connectTo(t, &server{most: math.MaxInt, first: &signal}); err != nil {
				t.Errorf("%s %v: %v", name, body, err)
			}
		}
	}
}

// connectTo connects to a server, and leaves it again.
func connectTo(t *testing.T, s *server) error {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "private"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.serve(l) }()
	m, err := Connect(await.Context(t), os.Getpid(), events.Address(filepath.Join(dir, "notify")))
	if err == nil {
		m.Close()
	}
	if err := await.Receive(t, "the end of the connection", served); err != nil {
		t.Error(err)
	}
	return err
}

// server answers what a service manager is asked at first.
type server struct {
	most  int           // how many bytes it says before it ends the connection
	first *dbus.Message // what it says before it answers; nil for nothing
	said  int           // how many bytes it has said
}

// serve lets a client in and answers until that has left.
func (s *server) serve(l net.Listener) error {
	defer l.Close()
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	if err := letIn(in, conn); err != nil {
		return err
	}
	if s.first != nil {
		if err := s.say(conn, s.first); err != nil {
			return err
		}
	}
	for s.said < s.most {
		question, err := dbus.DecodeMessage(in)
		if err != nil {
			return nil // it has left
		}
		var value any
		switch member, _ := question.Headers[dbus.FieldMember].Value().(string); member {
		case "Get":
			value = dbus.MakeVariant("257.13")
		case "ListUnitsByPatterns":
			value = []systemd.UnitStatus{}
		default:
			continue
		}
		answer := dbus.Message{
			Type: dbus.TypeMethodReply,
			Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldReplySerial: dbus.MakeVariant(question.Serial()),
				dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(value)),
			},
			Body: []any{value},
		}
		if err := s.say(conn, &answer); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) say(to io.Writer, m *dbus.Message) error {
	var out bytes.Buffer
	if err := m.EncodeTo(&out, binary.LittleEndian); err != nil {
		return err
	}
	text := out.Bytes()[:min(out.Len(), s.most-s.said)]
	s.said += len(text)
	_, err := to.Write(text)
	return err
}

// letIn is the service manager's part in the authentication.
func letIn(in *bufio.Reader, out io.Writer) error {
	if _, err := in.ReadByte(); err != nil { // of the credentials
		return err
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		reply := "OK 0123456789abcdef0123456789abcdef\r\n"
		switch fields := strings.Fields(line); {
		case fields[0] == "BEGIN":
			return nil
		case len(fields) == 1:
			reply = "REJECTED EXTERNAL\r\n"
		}
		if _, err := io.WriteString(out, reply); err != nil {
			return err
		}
	}
}
