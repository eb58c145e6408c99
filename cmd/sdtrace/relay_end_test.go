// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
)

// A log that nobody reads holds up neither what is forwarded nor the end.
func TestARelayEndsThoughNobodyReadsItsLog(t *testing.T) {
	vmtest.Natively(t, "pipes alone")
	address := filepath.Join(t.TempDir(), "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		t.Fatal(err)
	}
	args := []string{"relay", "--log", "--directory", filepath.Join(t.TempDir(), "n"), "--", "sd-send-notify"}
	for i := range 1000 {
		args = append(args, fmt.Sprintf("BOGUS=%d %s", i, strings.Repeat("x", 50)))
	}
	cmd := exec.Command("sdtrace", append(args, "READY=1")...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	cmd.Stderr = writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await.Until(t, "the relay ends", func() bool {
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	if err != nil {
		t.Errorf("it ends with %v", err)
	}
}
