// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/sdtrace/sdtrace/pkg/relay"
)

// Forwards what the processes of a control group say to this process's own notify socket, until
// the context ends.
func ExampleRelay() {
	serve := func(ctx context.Context, dir, cgroup string) error {
		upstream, err := relay.ParseAddress(os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			return err
		}
		r, err := relay.New(relay.Config{
			Upstream: upstream,
			Policy:   relay.DefaultPolicy(),
			Members: []relay.Member{{
				Listen:    filepath.Join(dir, relay.SocketName),
				Container: relay.Container{Cgroup: cgroup},
			}},
		})
		if err != nil {
			return err
		}
		defer r.Close()
		return r.Run(ctx)
	}
	_ = serve
}

// Addresses are those that NOTIFY_SOCKET can hold.
func ExampleParseAddress() {
	for _, text := range []string{"/run/systemd/notify", "@notify", "vsock:2:9999", "notify"} {
		if _, err := relay.ParseAddress(text); err != nil {
			fmt.Println(err)
		}
	}
	// Output: address "notify" is neither /path, @abstract nor vsock:CID:PORT
}

// A policy says of each key what becomes of it.
func ExamplePolicy_Set() {
	policy := relay.DefaultPolicy()
	if err := policy.Set("FDSTORE deny"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(policy.Set("FDSTORE perhaps") != nil)
	// Output: true
}
