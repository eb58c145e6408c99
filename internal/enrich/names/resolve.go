// SPDX-License-Identifier: Apache-2.0

package names

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

// ErrNotFound is what [Resolve] returns when no runtime's state names such a
// container.
var ErrNotFound = errors.New("no such container")

// Resolve finds the container that docker, podman (both of root and of users
// below /home) or runc calls name, and returns what identity.ContainerPatterns
// takes: the id of 64 hexadecimal digits or, for runc, the last component of
// the container's cgroup path. It reads the runtimes' state files in their
// default places and asks no daemon, so it also finds stopped containers.
//
// The error wraps [ErrNotFound] when there is none. It is another one when
// the name stands for several containers, when ctx is done, or when nothing
// was found but a state file could not be read.
func Resolve(ctx context.Context, name string) (id string, err error) {
	return resolve(ctx, "/", name)
}

func resolve(ctx context.Context, root, name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is not a container name", name)
	}
	var ids []string
	var failures []error
	look := func(glob string, find func(content []byte) ([]string, error)) error {
		files, err := fs.Glob(os.DirFS(root), glob)
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			content, err := readFile(root, file, func(uint32) bool { return true })
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			var found []string
			if err == nil {
				if found, err = find(content); err != nil {
					err = fmt.Errorf("decoding /%s: %w", file, err)
				}
			}
			if err != nil {
				failures = append(failures, err)
			}
			ids = append(ids, found...)
		}
		return nil
	}
	anything := strings.NewReplacer(anID, "*", aUser, "*")
	var err error
	for _, s := range states {
		err = errors.Join(err, look(anything.Replace(s.glob), func(content []byte) ([]string, error) {
			all, err := s.read(content)
			return idsOf(name, all), err
		}))
	}
	err = errors.Join(err, look("run/runc/"+quoteGlob(name)+"/state.json", func(content []byte) ([]string, error) {
		return inRunc(content, name)
	}))
	if err != nil {
		return "", fmt.Errorf("looking for container %q: %w", name, err)
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

func idsOf(name string, all []named) []string {
	var ids []string
	for _, container := range all {
		if slices.Contains(container.names, name) {
			ids = append(ids, container.id)
		}
	}
	return ids
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
