// SPDX-License-Identifier: Apache-2.0

//go:build linux

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// SetupBundle does what [SetupSpec] does in the config.json of a bundle, at once or not at all.
// What else is in the file, of a later version of the specification say, stays.
func SetupBundle(bundle string, opts SpecOptions) error {
	path := filepath.Join(bundle, "config.json")
	err := editSpec(path, func(spec *specs.Spec) error { return SetupSpec(spec, opts) })
	if err != nil {
		return fmt.Errorf("preparing %s: %w", path, err)
	}
	return nil
}

// editSpec changes the mounts and the environment in a config.json in place.
func editSpec(path string, edit func(*specs.Spec) error) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	before := slices.Clone(spec.Mounts)
	if err := edit(&spec); err != nil {
		return err
	}
	var whole, process map[string]json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return err
	}
	if err := json.Unmarshal(whole["process"], &process); err != nil {
		return err
	}
	mounts, err := asWritten(whole["mounts"], before, spec.Mounts)
	if err != nil {
		return err
	}
	err = errors.Join(
		setField(process, "env", spec.Process.Env),
		setField(whole, "mounts", mounts),
		setField(whole, "process", process),
	)
	if err != nil {
		return err
	}
	changed, err := json.MarshalIndent(whole, "", "\t")
	if err != nil {
		return err
	}
	return replaceFile(path, append(changed, '\n'))
}

// asWritten is the list of mounts after, in which each that was there before stands as it was written, with fields that the
// specification known here has not. Their order is the same.
func asWritten(text json.RawMessage, before, after []specs.Mount) (list []any, err error) {
	var written []json.RawMessage
	if len(text) > 0 {
		if err := json.Unmarshal(text, &written); err != nil {
			return nil, err
		}
	}
	i := 0
	for _, m := range after {
		for i < len(before) && !reflect.DeepEqual(before[i], m) {
			i++
		}
		if i < len(before) {
			list = append(list, written[i])
			i++
		} else {
			list = append(list, m)
		}
	}
	return list, nil
}

func setField(object map[string]json.RawMessage, name string, value any) (err error) {
	object[name], err = json.Marshal(value)
	return err
}

// replaceFile gives a file a new content, and leaves owner and mode as they are.
func replaceFile(path string, content []byte) error {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".config-*.json")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Chown(int(stat.Uid), int(stat.Gid)),
		temporary.Chmod(fs.FileMode(stat.Mode&0o777)), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
