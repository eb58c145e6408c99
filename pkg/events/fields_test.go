// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Fields that have no JSON form, and why.
var withoutJSON = map[string]string{
	"Event.BootTime":           "is Time by another clock, for proofs that are over by then",
	"Event.Text":               "follows from Payload",
	"Event.Awaited":            "is what the stream is about to yield",
	"Event.Sender.StartTime":   "is to tell processes apart while they live",
	"Event.Sender.Execs":       "is to tell programs of a process apart while it lives",
	"Event.Socket.SenderNetNS": "is where an address is looked up, until the receiver is known",
	"Receipt.Send":             "is the event, of which Seq is written",
	"Hang.Sender.StartTime":    "is to tell processes apart while they live",
	"Receipt.By.StartTime":     "is to tell processes apart while they live",
	"Verdict.Send":             "is the event, of which Seq is written",
	"Withheld.Send":            "is the event, of which Seq is written",
	"Withheld.Relay.StartTime": "is to tell processes apart while they live",
}

// A field that was added and forgotten in the JSON is found here: every one changes what is
// written, or stands above with the reason.
func TestEveryExportedFieldChangesTheJSON(t *testing.T) {
	used := make(map[string]bool)
	for _, record := range []func() any{
		func() any { return eventtest.Full() },
		func() any { return eventtest.Receipts()[0] },
		func() any { return eventtest.Withheld() },
		func() any { return eventtest.Verdict() },
		func() any { return eventtest.Unit() },
		func() any { return eventtest.Hang() },
		func() any {
			return &events.Lost{Time: eventtest.Time, RingFull: 1, Missed: 1, Receipts: 1, By: []events.LostBy{{UID: 1, Count: 1}}}
		},
	} {
		before := encoded(record())
		name := reflect.TypeOf(record()).Elem().Name()
		eachField(reflect.ValueOf(record()).Elem(), name, nil, func(path string, index []int) {
			changed := record()
			field := at(reflect.ValueOf(changed).Elem(), index)
			change(t, path, field)
			_, excused := withoutJSON[path]
			used[path] = true
			switch same := encoded(changed) == before; {
			case same && !excused:
				t.Errorf("%s is not in the JSON", path)
			case !same && excused:
				t.Errorf("%s is in the JSON, and said not to be", path)
			}
		})
	}
	for path := range withoutJSON {
		if !used[path] {
			t.Errorf("there is no field %s", path)
		}
	}
}

func encoded(v any) string {
	switch v := v.(type) {
	case *events.Event:
		return string(events.JSONEncoder{}.AppendEvent(nil, v))
	case *events.Receipt:
		return string(events.JSONEncoder{}.AppendReceipt(nil, v))
	case *events.Withheld:
		return string(events.JSONEncoder{}.AppendWithheld(nil, v))
	case *events.Verdict:
		return string(events.JSONEncoder{}.AppendVerdict(nil, v))
	case *events.Unit:
		return string(events.JSONEncoder{}.AppendUnit(nil, v))
	case *events.Hang:
		return string(events.JSONEncoder{}.AppendHang(nil, v))
	case *events.Lost:
		return string(events.JSONEncoder{}.AppendLost(nil, v))
	}
	panic(fmt.Sprintf("a %T", v))
}

// eachField calls visit for every exported field that is no struct itself.
func eachField(v reflect.Value, path string, index []int, visit func(string, []int)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		at := append(append([]int{}, index...), i)
		name := path + "." + field.Name
		if field.Anonymous {
			name = path
		}
		inner := v.Field(i)
		if inner.Kind() == reflect.Pointer && inner.Type().Elem().Kind() == reflect.Struct && !inner.IsNil() && field.Name != "HopOf" {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner.Type() != reflect.TypeFor[time.Time]() {
			eachField(inner, name, at, visit)
			continue
		}
		visit(name, at)
	}
}

func at(v reflect.Value, index []int) reflect.Value {
	for _, i := range index {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v
}

// change gives a field another value.
func change(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("another")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(v.Slice(0, v.Len()-1))
	case reflect.Pointer:
		if path == "Event.Text" {
			v.SetZero()
			return
		}
		inner := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			inner.Elem().Set(v.Elem())
		}
		v.Set(inner)
		switch {
		case path == "Event.HopOf":
			change(t, path, inner.Elem().FieldByName("Seq"))
		case inner.Elem().Kind() != reflect.Struct:
			change(t, path, inner.Elem())
		}
	case reflect.Struct:
		v.Set(reflect.ValueOf(eventtest.Time.Add(time.Hour)))
	default:
		t.Fatalf("%s is a %s", path, v.Kind())
	}
}
