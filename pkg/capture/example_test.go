// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/sdtrace/sdtrace/pkg/capture"
)

// Reads what sdtrace -o json wrote, and shows what did not arrive.
func ExampleRead() {
	const file = `
{"type":"send","seq":1,"time":"2026-11-23T16:01:46.1Z","backend":"fentry","sender":{"pid":812,"tid":812,"comm":"nginx","uid":0,"gid":0,"unit":"nginx.service"},"socket":{"address":"/run/systemd/notify"},"result":{"errno":""},"truncated":false,"payload":"READY=1"}
{"type":"send","seq":2,"time":"2026-11-23T16:01:47.2Z","backend":"fentry","sender":{"pid":900,"tid":900,"comm":"backup","uid":0,"gid":0,"unit":"backup.service"},"socket":{"address":"/run/systemd/notify"},"result":{"errno":"ENOENT","delivered":false},"truncated":false,"payload":"READY=1"}
`
	c, err := capture.Read(context.Background(), strings.NewReader(file), capture.Match{Failed: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for r, err := range c.All() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.Event.Sender.Unit, r.Event.Result.Errno)
	}
	// Output: backup.service ENOENT
}

// Keeps of a file what one unit's processes sent.
func ExampleCapture_Copy() {
	const file = `
{"type":"send","seq":1,"time":"2026-11-23T16:01:46.1Z","backend":"fentry","sender":{"pid":812,"tid":812,"comm":"nginx","uid":0,"gid":0,"cgroup":"/system.slice/nginx.service"},"socket":{"address":"/run/systemd/notify"},"result":{"errno":""},"truncated":false,"payload":"READY=1"}
{"type":"send","seq":2,"time":"2026-11-23T16:01:47.2Z","backend":"fentry","sender":{"pid":900,"tid":900,"comm":"backup","uid":0,"gid":0,"cgroup":"/system.slice/backup.service"},"socket":{"address":"/run/systemd/notify"},"result":{"errno":""},"truncated":false,"payload":"READY=1"}
`
	c, err := capture.Read(context.Background(), strings.NewReader(file), capture.Match{Units: []string{"nginx"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var kept bytes.Buffer
	if err := c.Copy(capture.JSON(&kept)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(bytes.Count(kept.Bytes(), []byte{'\n'}), "line, with seq 1:", bytes.Contains(kept.Bytes(), []byte(`"seq":1,`)))
	// Output: 1 line, with seq 1: true
}
