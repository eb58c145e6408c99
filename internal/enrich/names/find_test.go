// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
	"golang.org/x/sys/unix"
)

// idC and idD are of more containers.
var idC, idD = strings.Repeat("c", 64), strings.Repeat("d", 64)

// What runtimes write into a config.json, shortened.
const (
	criBundle   = `{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-name":"web-5d9c"}}`
	pauseBundle = `{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-name":"web-5d9c"}}`
	crioBundle  = `{"ociVersion":"1.0.0","annotations":{"io.container.manager":"cri-o","io.kubernetes.container.name":"etcd","io.kubernetes.cri-o.ContainerName":"k8s_etcd_etcd-a_kube-system_52aa_0"}}`
	crictl      = `{"ociVersion":"1.0.0","annotations":{"io.container.manager":"cri-o","io.kubernetes.cri-o.ContainerName":"k8s_job_pod_default_1_0"}}`
	nerdctl     = `{"ociVersion":"1.0.2","annotations":{"nerdctl/name":"box","nerdctl/namespace":"default","nerdctl/hostname":"3f2a9c41d7e0"}}`
)

func TestEachRuntimesFilesTellTheName(t *testing.T) {
	const (
		docker  = `{"StreamConfig":{},"State":{"Running":true},"ID":"` + idA + `","Created":"2026-11-24T12:00:00Z","Name":"/web","Driver":"overlay2"}`
		storage = `[{"id":"` + idB + `","names":["other"]},{"id":"` + idA + `","names":["web"],"image":"d708","layer":"d351","metadata":"{\"name\":\"web\"}","flags":{"Volatile":true}}]`
		kubelet = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/"
	)
	own := fmt.Sprintf("/user.slice/user-%d.slice/user@%d.service/user.slice/libpod-", os.Geteuid(), os.Geteuid())
	for _, tc := range []struct {
		name, file, content string
		container           Key
		want                string
	}{
		{"docker", "var/lib/docker/containers/" + idA + "/config.v2.json", docker, Key{Runtime: "docker"}, "web"},
		{"docker by an id alone", "var/lib/docker/containers/" + idA + "/config.v2.json", docker, Key{}, "web"},
		{"docker that maps users", "var/lib/docker/100000.100000/containers/" + idA + "/config.v2.json", docker, Key{Runtime: "docker"}, "web"},
		{"docker's file of another container", "var/lib/docker/containers/" + idA + "/config.v2.json", `{"ID":"` + idB + `","Name":"/web"}`, Key{Runtime: "docker"}, ""},
		{"docker's file, half written", "var/lib/docker/containers/" + idA + "/config.v2.json", docker[:90], Key{Runtime: "docker"}, ""},
		{"podman", "var/lib/containers/storage/overlay-containers/containers.json", storage, Key{Runtime: "podman"}, "web"},
		{"podman run --rm", "run/containers/storage/overlay-containers/volatile-containers.json", storage, Key{Runtime: "podman"}, "web"},
		{"docker's id in podman's file", "var/lib/containers/storage/overlay-containers/containers.json", storage, Key{Runtime: "docker"}, ""},
		{"podman's containers without this one", "var/lib/containers/storage/overlay-containers/containers.json", `[{"id":"` + idB + `","names":["other"]}]`, Key{Runtime: "podman"}, ""},
		{"containerd under Kubernetes", "run/containerd/io.containerd.runtime.v2.task/k8s.io/" + idA + "/config.json", criBundle, Key{Runtime: "containerd", Cgroup: kubelet + "cri-containerd-" + idA + ".scope"}, "nginx"},
		{"the sandbox of a pod", "run/containerd/io.containerd.runtime.v2.task/k8s.io/" + idA + "/config.json", pauseBundle, Key{Runtime: "containerd"}, ""},
		{"nerdctl", "run/containerd/io.containerd.runtime.v2.task/default/" + idA + "/config.json", nerdctl, Key{}, "box"},
		{"CRI-O", "run/containers/storage/overlay-containers/" + idA + "/userdata/config.json", crioBundle, Key{Runtime: "cri-o"}, "etcd"},
		{"CRI-O, on disk", "var/lib/containers/storage/overlay-containers/" + idA + "/userdata/config.json", crioBundle, Key{Runtime: "cri-o"}, "etcd"},
		{"CRI-O without the kubelet", "run/containers/storage/overlay-containers/" + idA + "/userdata/config.json", crictl, Key{Runtime: "cri-o"}, "k8s_job_pod_default_1_0"},
		{"a bundle without annotations", "run/containers/storage/overlay-containers/" + idA + "/userdata/config.json", `{"ociVersion":"1.0.0"}`, Key{Runtime: "cri-o"}, ""},
		{"a name longer than a file's", "var/lib/docker/containers/" + idA + "/config.v2.json", `{"ID":"` + idA + `","Name":"/` + strings.Repeat("x", 256) + `"}`, Key{Runtime: "docker"}, ""},
		{"no file", "etc/hosts", "", Key{Runtime: "docker"}, ""},
		{"a user's podman, where there is no user", "home/ann/.local/share/containers/storage/overlay-containers/containers.json", storage, Key{Runtime: "podman", Cgroup: "/machine.slice/libpod-" + idA}, ""},
		{"a user's podman", "home/ann/.local/share/containers/storage/overlay-containers/containers.json", storage, Key{Runtime: "podman", Cgroup: own + idA + ".scope"}, "web"},
		{"a user's docker", "home/ann/.local/share/docker/containers/" + idA + "/config.v2.json", docker, Key{Runtime: "docker", Cgroup: own + idA + ".scope"}, "web"},
		{"a user's podman run --rm", fmt.Sprintf("run/user/%d/containers/overlay-containers/volatile-containers.json", os.Geteuid()), storage, Key{Runtime: "podman", Cgroup: own + idA + ".scope"}, "web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if strings.HasPrefix(tc.name, "a user's") && tc.want != "" && os.Geteuid() == 0 {
				t.Skip("not declared: root has no slice of its own; see TestOnlyRootAndTheOwnerAreBelieved")
			}
			tc.container.ID = idA
			root := writeState(t, map[string]string{tc.file: tc.content})
			if got := newFinder(root).find(t.Context(), tc.container).Container; got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// running is a process as it is in /proc.
type running struct {
	pid        int
	comm, root string
	cwd        string
	args       []string
	uid        int
	cgroup     string
}

// start puts a process below a root directory.
func (r running) start(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, "proc", fmt.Sprint(r.pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if r.uid == 0 {
		r.uid = os.Geteuid()
	}
	for name, text := range map[string]string{
		"comm":    r.comm + "\n",
		"cmdline": strings.Join(r.args, "\x00") + "\x00",
		"stat":    fmt.Sprintf("%d (%s) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 9 9\n", r.pid, r.comm, 1000+r.pid),
		"status":  fmt.Sprintf("Name:\t%s\nUid:\t%d\t0\t0\t0\n", r.comm, r.uid),
		"cgroup":  "1:name=systemd:/\n0::" + r.cgroup + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"root": filepath.Join(root, r.root), "cwd": r.cwd} {
		if target != "" {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRunningProcessesTellTheName(t *testing.T) {
	docker := `{"ID":"` + idA + `","Name":"/web"}`
	podmanArgs := func(id, name string) []string {
		return []string{
			"/usr/bin/conmon", "--api-version", "1", "-c", id, "-u", id, "-r", "/usr/bin/crun",
			"-b", "/srv/storage/overlay-containers/" + id + "/userdata", "-p", "/run/pidfile", "-n", name, "--exit-dir", "/run/libpod/exits", "-s",
			"--exit-command", "/usr/bin/podman", "--exit-command-arg", "-n", "--exit-command-arg", "--name", "--exit-command-arg", "wrong",
		}
	}
	crioArgs := []string{
		"/usr/libexec/crio/conmon", "-b", "/var/data/overlay-containers/" + idA + "/userdata", "-c", idA, "--exit-dir", "/var/run/crio/exits",
		"-l", "/var/log/pods/kube-system_etcd-a_52aa/etcd/0.log", "--log-level", "info", "-n", "k8s_etcd_etcd-a_kube-system_52aa_0", "-P", "/run/conmon-pidfile",
	}
	for _, tc := range []struct {
		name    string
		process running
		files   map[string]string
		runtime string
		want    string
	}{
		{
			"dockerd --data-root",
			running{comm: "dockerd", args: []string{"dockerd", "--data-root", "/srv/docker", "--debug"}},
			map[string]string{"srv/docker/containers/" + idA + "/config.v2.json": docker},
			"docker", "web",
		},
		{
			"dockerd --data-root=, in another mount namespace",
			running{comm: "dockerd", args: []string{"dockerd", "--data-root=/srv/docker"}, root: "snap"},
			map[string]string{"snap/srv/docker/containers/" + idA + "/config.v2.json": docker},
			"docker", "web",
		},
		{
			"a path through a link is followed from the daemon's root",
			running{comm: "dockerd", args: []string{"dockerd", "--data-root=/link"}, root: "snap"},
			map[string]string{"snap/srv/docker/containers/" + idA + "/config.v2.json": docker, "snap/link": "-> /srv/docker"},
			"docker", "web",
		},
		{
			"daemon.json",
			running{comm: "dockerd", args: []string{"dockerd", "-H", "fd://"}},
			map[string]string{"srv/docker/containers/" + idA + "/config.v2.json": docker, "etc/docker/daemon.json": `{"debug":true,"data-root":"/srv/docker"}`},
			"docker", "web",
		},
		{
			"dockerd --config-file",
			running{comm: "dockerd", args: []string{"dockerd", "--config-file", "/etc/d.json"}},
			map[string]string{"srv/docker/containers/" + idA + "/config.v2.json": docker, "etc/d.json": `{"graph":"/srv/docker"}`},
			"docker", "web",
		},
		{
			"a dockerd with another mount namespace's default",
			running{comm: "dockerd", args: []string{"dockerd"}, root: "snap"},
			map[string]string{"snap/var/lib/docker/containers/" + idA + "/config.v2.json": docker},
			"docker", "web",
		},
		{"a dockerd that does not know it", running{comm: "dockerd", args: []string{"dockerd", "--data-root", "/srv/docker"}}, nil, "docker", ""},
		{"podman's conmon", running{comm: "conmon", args: podmanArgs(idA, "web")}, nil, "podman", "web"},
		{
			"podman rename, with a storage of its own",
			running{comm: "conmon", args: podmanArgs(idA, "web")},
			map[string]string{"srv/storage/overlay-containers/containers.json": `[{"id":"` + idA + `","names":["renamed"]}]`},
			"podman", "renamed",
		},
		{"another container's conmon", running{comm: "conmon", args: podmanArgs(idB, "web")}, nil, "podman", ""},
		{"conmon --cid --name", running{comm: "conmon", args: []string{"conmon", "--cid=" + idA, "--name", "web"}}, nil, "podman", "web"},
		{"conmon, for docker", running{comm: "conmon", args: podmanArgs(idA, "web")}, nil, "docker", ""},
		{
			"CRI-O's conmon",
			running{comm: "conmon", args: crioArgs},
			map[string]string{"var/data/overlay-containers/" + idA + "/userdata/config.json": crioBundle},
			"cri-o", "etcd",
		},
		{"CRI-O's conmon alone", running{comm: "conmon", args: crioArgs}, nil, "cri-o", "k8s_etcd_etcd-a_kube-system_52aa_0"},
		{
			"a shim of containerd's, for another container of its pod",
			running{
				comm: "containerd-shim", args: []string{"/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", idB, "-address", "/run/k3s/containerd/containerd.sock"},
				cwd: "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/" + idB,
			},
			map[string]string{
				"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/" + idA + "/config.json": criBundle,
				"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/" + idB + "/config.json": pauseBundle,
			},
			"containerd", "nginx",
		},
		{"a program of another name", running{comm: "conman", args: podmanArgs(idA, "web")}, nil, "podman", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := writeState(t, tc.files)
			tc.process.pid = 41
			tc.process.start(t, root)
			if got := newFinder(root).find(t.Context(), Key{Runtime: tc.runtime, ID: idA}).Container; got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestOnlyRootAndTheOwnerAreBelieved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	conmon := running{pid: 41, comm: "conmon", args: []string{"conmon", "-c", idA, "-n", "web"}}
	of := func(uid int, cgroup string) *running {
		r := conmon
		r.uid, r.cgroup = uid, cgroup
		return &r
	}
	const anns = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idA + ".scope"
	storage := "home/ann/.local/share/containers/storage/overlay-containers/containers.json"
	for _, tc := range []struct {
		name    string
		cgroup  string
		process *running
		file    string
		owner   int
		want    string
	}{
		{name: "a user's file, of a container of this user's", cgroup: anns, file: storage, owner: 1000, want: "web"},
		{name: "root's file, of a container of a user's", cgroup: anns, file: storage, want: "web"},
		{name: "another user's file", cgroup: anns, file: storage, owner: 1001},
		{name: "a user's file in root's place", cgroup: "/machine.slice/libpod-" + idA + ".scope", file: "var/lib/containers/storage/overlay-containers/containers.json", owner: 1000},
		{name: "a user's process", cgroup: anns, process: of(1000, "/user.slice/user-1000.slice/session-1.scope"), want: "web"},
		{name: "another user's process", cgroup: anns, process: of(1001, "/")},
		{name: "a user's process, for a container of root's", cgroup: "/machine.slice/libpod-" + idA + ".scope", process: of(1000, "/")},
		{name: "a user's process, for a container of which only the id is known", process: of(1000, "/")},
		{name: "a slice that a user called like another user's", cgroup: "/user.slice/user-1001.slice/user@1001.service/user-1000.slice/libpod-" + idA, process: of(1000, "/")},
		{name: "root's process in another container", cgroup: "/machine.slice/libpod-" + idA, process: of(0, "/docker/"+idB)},
		{name: "root's process in the container itself", cgroup: "/machine.slice/libpod-" + idA, process: of(0, "/machine.slice/libpod-"+idA)},
		{name: "root's process in the container around it", cgroup: "/docker/" + idB + "/libpod-" + idA, process: of(0, "/docker/"+idB), want: "web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			if tc.file != "" {
				root = writeState(t, map[string]string{tc.file: `[{"id":"` + idA + `","names":["web"]}]`})
				if err := os.Chown(filepath.Join(root, tc.file), tc.owner, 0); err != nil {
					t.Fatal(err)
				}
			}
			if tc.process != nil {
				tc.process.start(t, root)
			}
			if got := newFinder(root).find(t.Context(), Key{Runtime: "podman", ID: idA, Cgroup: tc.cgroup}).Container; got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	root := writeState(t, map[string]string{"file": "content", "link": "-> /file", "out": "-> ../../../file"})
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	everybody := func(uint32) bool { return true }
	for name, want := range map[string]string{"file": "content", "/file": "content", "link": "content", "out": "content"} {
		if got, err := readFile(root, name, everybody); err != nil || string(got) != want {
			t.Errorf("%s: got %q and error %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"fifo", "", "none", "file/none"} {
		if got, err := readFile(root, name, everybody); err == nil {
			t.Errorf("%q: got %q", name, got)
		}
	}
	if _, err := readFile(root, "file", func(uint32) bool { return false }); !errors.Is(err, errNotBelieved) {
		t.Errorf("got error %v for a file of somebody who is not believed", err)
	}
	if err := os.Truncate(filepath.Join(root, "file"), fileMax+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(root, "file", everybody); err == nil {
		t.Error("a file that is too long was read")
	}
}

func TestNothingIsLookedForAfterTheTimeLimit(t *testing.T) {
	root := writeState(t, map[string]string{"var/lib/docker/containers/" + idA + "/config.v2.json": `{"ID":"` + idA + `","Name":"/web"}`})
	running{pid: 41, comm: "conmon", args: []string{"conmon", "-c", idB, "-n", "db"}}.start(t, root)
	f := newFinder(root)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, id := range []string{idA, idB} {
		if got := f.find(done, Key{ID: id}).Container; got != "" {
			t.Errorf("got %q", got)
		}
	}
	f.processes.rest = time.Time{} // after a look that came to nothing, too
	for id, want := range map[string]string{idA: "web", idB: "db"} {
		if got := f.find(t.Context(), Key{ID: id}).Container; got != want {
			t.Errorf("got %q before the limit, want %q", got, want)
		}
	}
	if got := f.byConmonOfLastLook(done, idB); got != "" {
		t.Errorf("got %q of processes that were known", got)
	}
}

// A process that is gone, or whose number is another one's by now, tells nothing.
func TestAProcessThatIsGoneTellsNothing(t *testing.T) {
	root := t.TempDir()
	running{pid: 41, comm: "conmon", args: []string{"conmon", "-c", idA, "-n", "web"}}.start(t, root)
	f := newFinder(root)
	if got := f.find(t.Context(), Key{ID: idA}).Container; got != "web" {
		t.Fatalf("got %q, want web", got)
	}
	stat := filepath.Join(root, "proc/41/stat")
	for what, change := range map[string]func() error{
		"gone":       func() error { return os.Remove(stat) },
		"a number's": func() error { return os.WriteFile(stat, []byte("41 (conmon) S"+strings.Repeat(" 7", 30)), 0o600) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if got := f.byConmonOfLastLook(t.Context(), idA); got != "" {
			t.Errorf("%s: got %q", what, got)
		}
	}
}

// byConmonOfLastLook asks the processes that were found before.
func (f *finder) byConmonOfLastLook(ctx context.Context, id string) string {
	return f.byProcesses(ctx, Key{ID: id}, f.processes.began).Container
}

func TestOneLookAtAllProcessesIsForAllThatWaited(t *testing.T) {
	root := t.TempDir()
	running{pid: 41, comm: "conmon", args: []string{"conmon", "-c", idA, "-n", "a"}}.start(t, root)
	f := newFinder(root)
	f.find(t.Context(), Key{ID: idA})
	first := f.processes.began
	running{pid: 42, comm: "conmon", args: []string{"conmon", "-c", idC, "-n", "c"}}.start(t, root)
	f.processes.rest = time.Unix(1<<40, 0)
	if got := f.find(t.Context(), Key{ID: idC}).Container; got != "" || f.processes.began != first {
		t.Errorf("got %q although it is time to rest", got)
	}
	f.processes.rest = time.Time{}
	if got := f.byConmonOfLastLook(t.Context(), idC); got != "" || f.processes.began != first {
		t.Errorf("got %q of a process that was not there at the look that was asked for", got)
	}
	if got := f.find(t.Context(), Key{ID: idC}).Container; got != "c" {
		t.Errorf("got %q, want c", got)
	}
}

func TestAContainerOfKubernetesComesWithItsPod(t *testing.T) {
	const containerd = `{"annotations":{"io.kubernetes.cri.container-name":"web","io.kubernetes.cri.sandbox-name":"web-7d9f","io.kubernetes.cri.sandbox-namespace":"shop"}}`
	const crio = `{"annotations":{"io.kubernetes.container.name":"web","io.kubernetes.pod.name":"web-7d9f","io.kubernetes.pod.namespace":"shop"}}`
	for _, tc := range []struct{ runtime, file, content string }{
		{"containerd", "run/containerd/io.containerd.runtime.v2.task/k8s.io/" + idA + "/config.json", containerd},
		{"cri-o", "run/containers/storage/overlay-containers/" + idA + "/userdata/config.json", crio},
	} {
		root := writeState(t, map[string]string{tc.file: tc.content})
		got := newFinder(root).find(t.Context(), Key{Runtime: tc.runtime, ID: idA})
		if want := (Name{Container: "web", PodNamespace: "shop", PodName: "web-7d9f"}); got != want {
			t.Errorf("%s: %+v, want %+v", tc.runtime, got, want)
		}
		shared := &events.Container{Runtime: tc.runtime, ID: idA, PodUID: "1-2"}
		id := events.Identity{Container: shared}
		got.Complete(&id)
		if want := (events.Container{Runtime: tc.runtime, ID: idA, PodUID: "1-2", Name: "web", PodNamespace: "shop", PodName: "web-7d9f"}); *id.Container != want {
			t.Errorf("%s: completed to %+v", tc.runtime, id.Container)
		}
		if shared.Name != "" {
			t.Error("a container that others share was changed")
		}
	}
}
