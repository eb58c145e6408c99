// SPDX-License-Identifier: Apache-2.0

package names

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sdtrace/sdtrace/internal/proc"
)

// finder looks for names below root.
type finder struct {
	root      string
	processes processes
}

func newFinder(root string) *finder { return &finder{root: root, processes: processes{root: root}} }

// nameMax is the length of the longest name that is kept, in bytes: that of a file.
const nameMax = 255

// find returns the name of a container. What is in the default places counts
// first: a container can be renamed, and the processes do not tell.
func (f *finder) find(ctx context.Context, c Key) Name {
	asked := time.Now()
	for _, look := range []func() Name{
		func() Name { return Name{Container: f.inStates(ctx, c)} },
		func() Name { return f.inBundles(ctx, c) },
		func() Name { return f.byProcesses(ctx, c, asked) },
	} {
		if name := look(); name.Container != "" && valid(name.Container) && valid(name.PodNamespace) && valid(name.PodName) {
			return name
		}
	}
	return Name{}
}

func valid(name string) bool { return len(name) <= nameMax && utf8.ValidString(name) }

func (f *finder) inStates(ctx context.Context, c Key) string {
	for _, s := range states {
		if c.Runtime != "" && c.Runtime != s.runtime || s.isOfUser() && c.owner() == 0 {
			continue
		}
		for _, file := range f.files(ctx, s.glob, c) {
			if name := f.nameIn("", file, c, s.read); name != "" {
				return name
			}
		}
	}
	return ""
}

func (f *finder) inBundles(ctx context.Context, c Key) Name {
	for _, b := range bundles {
		if c.Runtime != "" && c.Runtime != b.runtime {
			continue
		}
		for _, file := range f.files(ctx, b.glob, c) {
			if name := f.bundleName("", file, c); name.Container != "" {
				return name
			}
		}
	}
	return Name{}
}

func (f *finder) files(ctx context.Context, glob string, c Key) []string {
	glob = strings.NewReplacer(anID, c.ID, aUser, strconv.FormatUint(uint64(c.owner()), 10)).Replace(glob)
	if ctx.Err() != nil {
		return nil
	}
	if !strings.Contains(glob, "*") {
		return []string{glob}
	}
	files, _ := fs.Glob(os.DirFS(f.root), glob)
	return files
}

// nameIn looks into a state file as the process pid sees it or, for "", as this one does.
func (f *finder) nameIn(pid, file string, c Key, read func([]byte) ([]named, error)) string {
	content, err := f.readFile(pid, file, c.believes)
	if err != nil {
		return ""
	}
	all, err := read(content)
	if err != nil {
		return ""
	}
	for _, container := range all {
		if container.id == c.ID && len(container.names) > 0 {
			return container.names[0]
		}
	}
	return ""
}

func (f *finder) bundleName(pid, file string, c Key) Name {
	content, err := f.readFile(pid, file, c.believes)
	if err != nil {
		return Name{}
	}
	name, err := readBundle(content)
	if err != nil {
		return Name{}
	}
	return name
}

// readFile reads a file as the process pid sees it or, for "", as this one does.
func (f *finder) readFile(pid, file string, believes func(uid uint32) bool) ([]byte, error) {
	if pid == "" {
		return readFile(f.root, file, believes)
	}
	p, err := f.processes.open(pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return proc.WithinPath(p, file, func(p proc.Process) ([]byte, error) {
		return readFile(fmt.Sprintf("/proc/self/fd/%d/root", p.FD), file, believes)
	}, nil)
}

// byProcesses asks for the places that are not the default ones, by what the runtimes'
// processes were started with.
func (f *finder) byProcesses(ctx context.Context, c Key, asked time.Time) Name {
	for _, p := range f.processes.since(ctx, asked) {
		if ctx.Err() != nil {
			return Name{}
		}
		if !p.knows(c) {
			continue
		}
		var name Name
		switch p.comm {
		case "dockerd":
			name.Container = f.byDockerd(p, c)
		case "conmon":
			name = f.byConmon(p, c)
		case "containerd-shim":
			name = f.byShim(p, c)
		}
		if name.Container != "" && f.processes.lives(p) {
			return name
		}
	}
	return Name{}
}

func (f *finder) byDockerd(p process, c Key) string {
	root := p.option("--data-root", "-g", "--graph")
	if root == "" {
		root = cmp.Or(f.dataRoot(p, c), "/var/lib/docker")
	}
	if !filepath.IsAbs(root) {
		return ""
	}
	return f.nameIn(p.pid, filepath.Join(root, "containers", c.ID, "config.v2.json"), c, readDocker)
}

// dataRoot is what the configuration of a dockerd says.
func (f *finder) dataRoot(p process, c Key) string {
	file := cmp.Or(p.option("--config-file"), "/etc/docker/daemon.json")
	content, err := f.readFile(p.pid, file, c.believes)
	if err != nil {
		return ""
	}
	var config struct {
		DataRoot string `json:"data-root"`
		Graph    string `json:"graph"`
	}
	if json.Unmarshal(content, &config) != nil {
		return ""
	}
	return cmp.Or(config.DataRoot, config.Graph)
}

// byConmon asks the monitor of a container of podman's or CRI-O's (conmon(8)). The name
// that it was started with comes last: podman can have renamed the container since, and
// CRI-O calls it otherwise than Kubernetes.
func (f *finder) byConmon(p process, c Key) Name {
	if p.option("-c", "--cid") != c.ID {
		return Name{}
	}
	var name Name
	if bundle := p.option("-b", "--bundle"); filepath.IsAbs(bundle) {
		if c.Runtime == "podman" {
			// STORAGE/DRIVER-containers/ID/userdata
			name.Container = f.nameIn(p.pid, filepath.Join(bundle, "../../containers.json"), c, readStorage)
		} else {
			name = f.bundleName(p.pid, filepath.Join(bundle, "config.json"), c)
		}
	}
	name.Container = cmp.Or(name.Container, p.option("-n", "--name"))
	return name
}

// byShim looks beside the bundle in which a shim of containerd's runs: one shim can be
// that of several containers, such as those of a pod.
func (f *finder) byShim(p process, c Key) Name {
	shim, err := f.processes.open(p.pid)
	if err != nil {
		return Name{}
	}
	defer shim.Close()
	bundle, err := shim.Link("cwd")
	if err != nil || !slices.Contains(p.args, "-id") {
		return Name{}
	}
	return f.bundleName(p.pid, filepath.Join(filepath.Dir(bundle), c.ID, "config.json"), c)
}
