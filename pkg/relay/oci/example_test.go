// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"log"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sdtrace/sdtrace/pkg/relay/oci"
)

// Lets the process of a container reach the relay's socket in /run/web/notify.
func ExampleSetupSpec() {
	spec := &specs.Spec{Process: &specs.Process{Args: []string{"/app"}}}
	if err := oci.SetupSpec(spec, oci.SpecOptions{Directory: "/run/web/notify"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(spec.Process.Env[0])
	fmt.Println(spec.Mounts[0].Source, "at", spec.Mounts[0].Destination)
	// Output:
	// NOTIFY_SOCKET=/run/notify/notify.sock
	// /run/web/notify at /run/notify
}
