// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// What a program would read as something that it is not, no verifier tells.
func TestFunctionsThatTakeSomethingElseAreRefused(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skipf("not declared: %v", err)
	}
	for _, f := range plans {
		for _, p := range f.programs {
			if p.tracepoint != "" {
				continue
			}
			if err := p.fits(kernel); err != nil {
				t.Errorf("%s, as it is: %v", p.hook, err)
			}
		}
	}
	const hook = "fentry/security_unix_may_send"
	for _, tt := range []struct {
		name string
		a    attachment
		want error
	}{
		{"no such function", trampoline("p", "fentry/security_unix_may_think", "socket", "socket"), fs.ErrNotExist},
		{"another struct", trampoline("p", hook, "socket", "sock"), ebpf.ErrNotSupported},
		{"one more parameter", trampoline("p", hook, "socket", "socket", ""), ebpf.ErrNotSupported},
		{"one less", trampoline("p", hook, "socket"), ebpf.ErrNotSupported},
		{"a number for a pointer", trampoline("p", "fexit/unix_dgram_recvmsg", "socket", "msghdr", "size", ""), ebpf.ErrNotSupported},
	} {
		if err := tt.a.fits(kernel); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}
