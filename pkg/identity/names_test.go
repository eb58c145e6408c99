// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeState puts files below a new root, as the runtimes leave them.
func writeState(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestResolveContainerNameReadsEachRuntimesState(t *testing.T) {
	idC := strings.Repeat("c", containerIDLen)
	idD := strings.Repeat("d", containerIDLen)
	root := os.DirFS(writeState(t, map[string]string{
		"var/lib/docker/containers/" + idA + "/config.v2.json":                        `{"State":{"Running":true},"ID":"` + idA + `","Name":"/web","Driver":"overlay2"}`,
		"var/lib/docker/containers/" + idB + "/config.v2.json":                        `{"ID":"` + idB + `","Name":"/twin"}`,
		"var/lib/docker/containers/broken/config.v2.json":                             `{"ID":`,
		"var/lib/containers/storage/overlay-containers/containers.json":               `[{"id":"` + idC + `","names":["db","twin"],"layer":"x"},{"id":"` + idB + `"}]`,
		"run/containers/storage/overlay-containers/volatile-containers.json":          `[{"id":"` + idD + `","names":["job"]}]`,
		"home/ann/.local/share/containers/storage/overlay-containers/containers.json": `[{"id":"` + idD + `","names":["anns"]}]`,
		"run/runc/plain/state.json":                                                   `{"id":"plain","cgroup_paths":{"":"/sys/fs/cgroup/plain"}}`,
		"run/runc/moved/state.json":                                                   `{"id":"moved","cgroup_paths":{"memory":"/sys/fs/cgroup/memory/grp/box","pids":"/sys/fs/cgroup/pids/grp/box"}}`,
		"run/runc/unit/state.json":                                                    `{"id":"unit","cgroup_paths":{"":"/sys/fs/cgroup/system.slice/runc-unit.scope"}}`,
		"run/runc/bare/state.json":                                                    `{"id":"bare"}`,
		"run/runc/st[a]r/state.json":                                                  `{"id":"st[a]r"}`,
	}))
	for _, tt := range []struct{ name, want string }{
		{"web", idA},
		{"db", idC},
		{"job", idD},
		{"anns", idD},
		{"plain", "plain"},
		{"moved", "box"},
		{"unit", "runc-unit.scope"},
		{"bare", "bare"},
		{"st[a]r", "st[a]r"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := resolveContainerName(context.Background(), root, tt.name)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if _, err := ContainerPatterns(got); err != nil {
				t.Errorf("ContainerPatterns refuses it: %v", err)
			}
		})
	}

	if id, err := resolveContainerName(context.Background(), root, "twin"); err == nil || errors.Is(err, ErrNotFound) ||
		!strings.Contains(err.Error(), idB) || !strings.Contains(err.Error(), idC) {
		t.Errorf("a name of two containers: got %q and error %v, want an error that gives both ids", id, err)
	}
	if id, err := resolveContainerName(context.Background(), root, "nobody"); err == nil || !strings.Contains(err.Error(), "broken/config.v2.json") {
		t.Errorf("nothing found and a file not readable: got %q and error %v, want one that names the file", id, err)
	}
	if id, err := resolveContainerName(context.Background(), root, "*"); err == nil {
		t.Errorf("got %q for a glob", id)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := resolveContainerName(done, root, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v after the context was cancelled", err)
	}
}

func TestResolveContainerNameTellsWhenThereIsNone(t *testing.T) {
	empty := os.DirFS(t.TempDir())
	if id, err := resolveContainerName(context.Background(), empty, "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %q and error %v, want ErrNotFound", id, err)
	}
	other := os.DirFS(writeState(t, map[string]string{
		"var/lib/docker/containers/" + idA + "/config.v2.json": `{"ID":"` + idA + `","Name":"/web2"}`,
	}))
	if id, err := resolveContainerName(context.Background(), other, "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %q and error %v, want ErrNotFound", id, err)
	}
	for _, name := range []string{"", "..", "../etc"} {
		if id, err := resolveContainerName(context.Background(), empty, name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: got %q and error %v, want a refusal", name, id, err)
		}
	}
}
