// SPDX-License-Identifier: Apache-2.0

// Command web stands for a server that one has packed into a container: it says
// by sd_notify(3) that it is ready, and that it stops when it is told to.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	say("READY=1\nSTATUS=Serving requests")
	<-stop
	say("STOPPING=1\nSTATUS=Goodbye")
}

func say(state string) {
	told, err := daemon.SdNotify(false, state)
	switch {
	case err != nil:
		fmt.Println("web: nobody is told:", err)
	case !told:
		fmt.Println("web: nobody is told: NOTIFY_SOCKET is not set")
	default:
		fmt.Printf("web: told %s: %q\n", os.Getenv("NOTIFY_SOCKET"), state)
	}
}
