// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"archive/tar"
	"bytes"
	"errors"
)

// ProgramArchive is a tar archive of a root file system with nothing in it but a program: what
// "docker import" and "podman import" make an image of.
func ProgramArchive(name string, program []byte) ([]byte, error) {
	archive := new(bytes.Buffer)
	w := tar.NewWriter(archive)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	_, err := w.Write(program)
	return archive.Bytes(), errors.Join(err, w.Close())
}
