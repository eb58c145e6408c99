// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Streams what is sent to one socket, with who sent it and whose the socket is.
func ExampleOpen() {
	address, stop := exampleService()
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	live, err := capture.Open(ctx, capture.Options{
		Match: capture.Match{Sockets: []string{address}, Keys: []string{"STATUS"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer live.Close()
	for r, err := range live.All() {
		if err != nil {
			log.Fatal(err)
		}
		if e := r.Event; e != nil && e.Receiver != nil && e.Receiver.PID != 0 {
			status, _ := e.TextOf().Lookup("STATUS")
			fmt.Printf("%s says %q to %s\n", e.Sender.Comm, status, e.Receiver.Comm)
			break
		}
	}
	// Output: python3 says "Serving" to python3
}

// A stage adds what it knows to the records that pass; here, how many a process has sent.
func ExampleDo() {
	sent := make(map[uint32]int)
	count := capture.Do(func(r *events.Record) {
		if r.Event != nil {
			sent[r.Event.Sender.PID]++
		}
	})
	_ = capture.Options{Stages: []capture.Stage{count}}
}

// exampleService is a program that says STATUS=Serving over and over to a socket that another
// one holds, until stop is called.
func exampleService() (address string, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	address = filepath.Join(dir, "notify.sock")
	const hold = `import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print(flush=True)
while True: s.recv(4096)`
	const say = `import socket, sys, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True: s.sendto(b"READY=1\nSTATUS=Serving", sys.argv[1]); time.sleep(0.05)`
	holder := exec.Command("python3", "-c", hold, address)
	out, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		log.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 1)) // it is bound
	sender := exec.Command("python3", "-c", say, address)
	if err := sender.Start(); err != nil {
		log.Fatal(err)
	}
	return address, func() {
		for _, cmd := range []*exec.Cmd{sender, holder} {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		_ = os.RemoveAll(dir)
	}
}
