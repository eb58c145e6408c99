// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// ErrNotFound is what [ResolveContainerName] returns when no runtime's state
// names such a container.
var ErrNotFound = errors.New("no such container")

// ResolveContainerName finds the container that docker, podman (of root and of
// users below /home) or runc calls name, and returns what [ContainerPatterns]
// takes: the id of 64 hexadecimal digits or, for runc, the last component of
// the container's cgroup path. It reads the runtimes' state files in their
// default places and asks no daemon, so it also finds stopped containers.
//
// The error wraps [ErrNotFound] when there is none. It is another one when
// the name stands for several containers, when ctx is done, or when nothing
// was found but a state file could not be read.
func ResolveContainerName(ctx context.Context, name string) (id string, err error) {
	return resolveContainerName(ctx, os.DirFS("/"), name)
}

func resolveContainerName(ctx context.Context, root fs.FS, name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is not a container name", name)
	}
	var ids []string
	var failures []error
	for _, state := range states(name) {
		files, err := fs.Glob(root, state.glob)
		if err != nil {
			return "", fmt.Errorf("looking for container %q: %w", name, err)
		}
		for _, file := range files {
			if err := ctx.Err(); err != nil {
				return "", fmt.Errorf("looking for container %q: %w", name, err)
			}
			found, err := read(root, file, name, state.find)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				failures = append(failures, err)
			}
			ids = append(ids, found...)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	switch {
	case len(ids) == 1:
		return ids[0], nil
	case len(ids) > 1:
		return "", fmt.Errorf("container name %q stands for several: give an id, one of %s", name, strings.Join(ids, ", "))
	case len(failures) > 0:
		return "", fmt.Errorf("looking for container %q: %w", name, errors.Join(failures...))
	}
	return "", fmt.Errorf("%w: %q", ErrNotFound, name)
}

type state struct {
	glob string
	// find returns the ids of the containers called name.
	find func(content []byte, name string) ([]string, error)
}

func states(name string) []state {
	return []state{
		{"var/lib/docker/containers/*/config.v2.json", inDocker},
		{"var/lib/containers/storage/*-containers/containers.json", inStorage},
		{"run/containers/storage/*-containers/volatile-containers.json", inStorage},
		{"home/*/.local/share/containers/storage/*-containers/containers.json", inStorage},
		{"run/user/*/containers/*-containers/volatile-containers.json", inStorage},
		{"run/runc/" + quoteGlob(name) + "/state.json", inRunc},
	}
}

func read(root fs.FS, file, name string, find func([]byte, string) ([]string, error)) ([]string, error) {
	content, err := fs.ReadFile(root, file)
	if err != nil {
		return nil, err
	}
	ids, err := find(content, name)
	if err != nil {
		return nil, fmt.Errorf("decoding /%s: %w", file, err)
	}
	return ids, nil
}

// inDocker reads dockerd's container/State, where a name begins with "/".
func inDocker(content []byte, name string) ([]string, error) {
	var container struct{ ID, Name string }
	if err := json.Unmarshal(content, &container); err != nil {
		return nil, err
	}
	if container.Name != "/"+name || !isContainerID(container.ID) {
		return nil, nil
	}
	return []string{container.ID}, nil
}

// inStorage reads the container list of containers/storage, which podman uses.
func inStorage(content []byte, name string) ([]string, error) {
	var containers []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
	}
	if err := json.Unmarshal(content, &containers); err != nil {
		return nil, err
	}
	var ids []string
	for _, container := range containers {
		if slices.Contains(container.Names, name) && isContainerID(container.ID) {
			ids = append(ids, container.ID)
		}
	}
	return ids, nil
}

// inRunc reads libcontainer's State. Its cgroup_paths have one path for each
// cgroup v1 controller, the one of cgroup v2 stands under "".
func inRunc(content []byte, name string) ([]string, error) {
	var container struct {
		ID          string            `json:"id"`
		CgroupPaths map[string]string `json:"cgroup_paths"`
	}
	if err := json.Unmarshal(content, &container); err != nil {
		return nil, err
	}
	if container.ID != name {
		return nil, nil
	}
	var ids []string
	for _, p := range container.CgroupPaths {
		if base := path.Base(p); base != "." && base != "/" {
			ids = append(ids, base)
		}
	}
	if len(ids) == 0 {
		return []string{name}, nil
	}
	return ids, nil
}

var globQuoter = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func quoteGlob(name string) string { return globQuoter.Replace(name) }
