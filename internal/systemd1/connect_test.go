// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd1

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	answer := encode(t, answerTo(1, "257.13"))
	for n := range len(answer) + 1 {
		if err := connectTo(t, answer[:n]); (err == nil) != (n == len(answer)) {
			t.Errorf("%d of %d bytes: %v", n, len(answer), err)
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
			if err := connectTo(t, append(encode(t, signal), encode(t, answerTo(1, "257.13"))...)); err != nil {
				t.Errorf("%s %v: %v", name, body, err)
			}
		}
	}
}

// connectTo connects to who says that to the first question, and then ends the connection.
func connectTo(t *testing.T, say []byte) error {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "private"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- serve(l, say) }()
	m, err := Connect(await.Context(t), os.Getpid(), events.Address(filepath.Join(dir, "notify")))
	if err == nil {
		m.Close()
	}
	if err := await.Receive(t, "the end of the connection", served); err != nil {
		t.Error(err)
	}
	return err
}

// serve lets a client in, waits for its first question, says something, and ends the connection.
func serve(l net.Listener, say []byte) error {
	defer l.Close()
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	if _, err := in.ReadByte(); err != nil { // of the credentials
		return err
	}
	for begun := false; !begun; {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		reply := "OK 0123456789abcdef0123456789abcdef\r\n"
		switch fields := strings.Fields(line); {
		case fields[0] == "BEGIN":
			begun, reply = true, ""
		case len(fields) == 1:
			reply = "REJECTED EXTERNAL\r\n"
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return err
		}
	}
	if _, err := in.ReadByte(); err != nil { // of the question
		return err
	}
	_, err = conn.Write(say)
	return err
}

// answerTo is the answer to the question with that number whose only value is text.
func answerTo(serial uint32, text string) dbus.Message {
	return dbus.Message{
		Type: dbus.TypeMethodReply,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(serial),
			dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(dbus.MakeVariant(text))),
		},
		Body: []any{dbus.MakeVariant(text)},
	}
}

func encode(t *testing.T, m dbus.Message) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := m.EncodeTo(&out, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
