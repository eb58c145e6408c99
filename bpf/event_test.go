// SPDX-License-Identifier: Apache-2.0

package bpf_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// The C of bpf/event.h is the source of truth for the records: every member has its
// twin in Go, in the same place and of the same size.
func TestWireTypesHaveTheLayoutOfTheirStructs(t *testing.T) {
	for _, tt := range []struct {
		object string
		load   func() (*ebpf.CollectionSpec, error)
		c      string
		twin   reflect.Type
	}{
		{"fentry", bpf.LoadFentry, "event", reflect.TypeFor[events.WireHeader]()},
		{"fentry", bpf.LoadFentry, "receipt", reflect.TypeFor[events.WireReceipt]()},
		{"tracepoint", bpf.LoadTracepoint, "event", reflect.TypeFor[events.WireHeader]()},
	} {
		t.Run(tt.object+" "+tt.c, func(t *testing.T) {
			spec, err := tt.load()
			if err != nil {
				t.Fatal(err)
			}
			var c *btf.Struct
			if err := spec.Types.TypeByName(tt.c, &c); err != nil {
				t.Fatal(err)
			}
			members := c.Members
			if last := len(members) - 1; members[last].Name == "data" {
				members = members[:last]
			}
			if len(members) != tt.twin.NumField() {
				t.Fatalf("struct %s has %d members, %s %d fields", tt.c, len(members), tt.twin, tt.twin.NumField())
			}
			for i, member := range members {
				field := tt.twin.Field(i)
				if want := strings.ReplaceAll(member.Name, "_", ""); !strings.EqualFold(field.Name, want) {
					t.Errorf("field %d is %s, want one for %s", i, field.Name, member.Name)
				}
				if field.Offset != uintptr(member.Offset.Bytes()) {
					t.Errorf("%s is at %d, want %d", field.Name, field.Offset, member.Offset.Bytes())
				}
				size, err := btf.Sizeof(member.Type)
				if err != nil {
					t.Fatal(err)
				}
				if field.Type.Size() != uintptr(size) {
					t.Errorf("%s has %d bytes, want %d", field.Name, field.Type.Size(), size)
				}
			}
		})
	}
}
