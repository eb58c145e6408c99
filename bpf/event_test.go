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

// The C of bpf/event.h is the source of truth for the record: every member has its
// twin in events.WireHeader, in the same place and of the same size, for both
// objects.
func TestWireHeaderHasTheLayoutOfStructEvent(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){
		"fentry": bpf.LoadFentry, "tracepoint": bpf.LoadTracepoint,
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := load()
			if err != nil {
				t.Fatal(err)
			}
			var event *btf.Struct
			if err := spec.Types.TypeByName("event", &event); err != nil {
				t.Fatal(err)
			}
			header := reflect.TypeFor[events.WireHeader]()
			members := event.Members
			if last := members[len(members)-1]; last.Name != "data" {
				t.Fatalf("struct event ends with %s, want data", last.Name)
			}
			members = members[:len(members)-1]
			if len(members) != header.NumField() {
				t.Fatalf("struct event has %d members before data, WireHeader %d fields",
					len(members), header.NumField())
			}
			for i, member := range members {
				field := header.Field(i)
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
