// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// BenchmarkTake is an inventory of a large host: ten thousand processes more than
// there are anyway, each with NOTIFY_SOCKET in its environment, a thousand of
// them in a network namespace of their own. ms/take is what it took.
func BenchmarkTake(b *testing.B) {
	holdertest.RequireRoot(b)
	const processes, namespaces = 10_000, 1_000
	address := filepath.Join(holdertest.Dir(b), "notify.sock")
	holdertest.Start(b, "", nil, address)
	// A shell forks faster than we do. It ends with its stdin, and takes all along.
	const script = `
i=0
while [ $i -lt $1 ]; do
	if [ $i -lt $2 ]; then unshare --net sleep infinity & else sleep infinity & fi
	i=$((i + 1))
done
echo ready
read -r line
kill $(jobs -p)`
	holdertest.StartBy(b, address, "bash", "-c", script, "bash", strconv.Itoa(processes), strconv.Itoa(namespaces))
	// unshare becomes sleep when it has its namespace.
	for exec.Command("pgrep", "-x", "unshare").Run() == nil {
		continue
	}
	b.ResetTimer()
	for b.Loop() {
		inv, err := inventory.Take(context.Background(), inventory.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if n := len(inv.Clients); n < processes {
			b.Fatalf("%d clients, want %d", n, processes)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/take")
}
