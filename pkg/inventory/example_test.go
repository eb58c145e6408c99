// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"context"
	"fmt"
	"log"

	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// Says which processes have a NOTIFY_SOCKET that leads nowhere.
func ExampleTake() {
	inv, err := inventory.Take(context.Background(), inventory.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, client := range inv.Clients {
		if client.State != inventory.ClientOK {
			fmt.Printf("%s of %s: %s is %s\n", client.Process, client.Unit, client.NotifySocket, client.State)
		}
	}
}
