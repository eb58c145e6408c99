// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package capture

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Live is a capture of what is sent on this machine, which only Linux has.
type Live struct {
	*Capture
}

// Open fails: only Linux has notify sockets. [OpenFile] works here.
func Open(context.Context, Options) (*Live, error) {
	const why = "only Linux has notify sockets; a file can be read here (-r)"
	return nil, fmt.Errorf("capturing on %s: %w: %s", runtime.GOOS, errors.ErrUnsupported, why)
}
