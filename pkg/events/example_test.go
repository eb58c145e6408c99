// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"fmt"
	"log"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// A datagram is read as systemd reads it: the escaped line end belongs to the status.
func ExampleParse() {
	message, err := events.Parse([]byte("READY=1\nSTATUS=Serving\\\nin two lines\n"))
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range message {
		fmt.Printf("%s = %q\n", a.Key, a.Value)
	}
	// Output:
	// READY = "1"
	// STATUS = "Serving\nin two lines"
}

// Decode reads one line of sdtrace -o json.
func ExampleDecode() {
	const line = `{"type":"send","seq":7,"time":"2026-11-23T16:01:46Z","backend":"fentry",` +
		`"sender":{"pid":812,"tid":812,"comm":"nginx","uid":0,"gid":0,"unit":"nginx.service"},` +
		`"socket":{"address":"/run/systemd/notify"},"result":{"errno":""},"truncated":false,"payload":"READY=1"}`
	r, err := events.Decode([]byte(line))
	if err != nil {
		log.Fatal(err)
	}
	ready, _ := r.Event.TextOf().Lookup("READY")
	fmt.Println(r.Event.Sender.Unit, r.Event.Socket.Address, ready)
	// Output: nginx.service /run/systemd/notify 1
}

// An abstract address and a relative path that looks like one are told apart.
func ExampleAddressOf() {
	for _, sunPath := range []string{"\x00name", "@name", "/run/systemd/notify\x00"} {
		address := events.AddressOf([]byte(sunPath))
		fmt.Println(address, address.IsAbstract())
	}
	// Output:
	// @name true
	// ./@name false
	// /run/systemd/notify false
}
