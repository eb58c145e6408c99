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
	err = errors.Join(
		setField(process, "env", spec.Process.Env),
		setField(whole, "mounts", spec.Mounts),
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
