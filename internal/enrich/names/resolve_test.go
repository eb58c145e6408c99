// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/identity"
)

const (
	idA = "3f2a9c41d7e05b8863f1c2aa90be7d64158e03f7c9ab26d4e1705f38b6c2d9a0"
	idB = "81c0774e5d1f2b3a96e8d0c4b5a7f6190213e4d5c6b7a8990f1e2d3c4b5a6978"
)

// writeState puts files below a new root, as the runtimes leave them. "-> " in front of
// a content makes it the target of a symbolic link.
func writeState(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, name); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestResolveReadsEachRuntimesState(t *testing.T) {
	root := writeState(t, map[string]string{
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
	})
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
			got, err := resolve(context.Background(), root, tt.name)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if _, err := identity.ContainerPatterns(got); err != nil {
				t.Errorf("ContainerPatterns refuses it: %v", err)
			}
		})
	}

	if id, err := resolve(context.Background(), root, "twin"); err == nil || errors.Is(err, ErrNotFound) ||
		!strings.Contains(err.Error(), idB) || !strings.Contains(err.Error(), idC) {
		t.Errorf("a name of two containers: got %q and error %v, want an error that gives both ids", id, err)
	}
	if id, err := resolve(context.Background(), root, "nobody"); err == nil || !strings.Contains(err.Error(), "broken/config.v2.json") {
		t.Errorf("nothing found and a file not readable: got %q and error %v, want one that names the file", id, err)
	}
	if id, err := resolve(context.Background(), root, "*"); err == nil {
		t.Errorf("got %q for a glob", id)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := resolve(done, root, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v after the context was cancelled", err)
	}
}

func TestResolveTellsWhenThereIsNone(t *testing.T) {
	empty := t.TempDir()
	if id, err := resolve(context.Background(), empty, "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %q and error %v, want ErrNotFound", id, err)
	}
	other := writeState(t, map[string]string{
		"var/lib/docker/containers/" + idA + "/config.v2.json": `{"ID":"` + idA + `","Name":"/web2"}`,
	})
	if id, err := resolve(context.Background(), other, "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %q and error %v, want ErrNotFound", id, err)
	}
	for _, name := range []string{"", "..", "../etc"} {
		if id, err := resolve(context.Background(), empty, name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: got %q and error %v, want a refusal", name, id, err)
		}
	}
}
