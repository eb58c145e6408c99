// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd1

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
