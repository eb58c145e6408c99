// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"reflect"
	"testing"

	"github.com/sdtrace/sdtrace/vmtest"
)

func TestAFilterIsEmptyIfNoneOfItsFieldsIsSet(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	if !(Filter{}).Empty() || !(Filter{Units: nil, Containers: []string{}, Comms: []string{}}).Empty() {
		t.Error("a filter of nothing is not empty")
	}
	for i := range reflect.TypeFor[Filter]().NumField() {
		var f Filter
		field := reflect.ValueOf(&f).Elem().Field(i)
		switch field.Kind() {
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
			if inner := field.Index(0); inner.Kind() == reflect.Slice {
				inner.Set(reflect.MakeSlice(inner.Type(), 1, 1))
			}
		default:
			t.Fatalf("a field of kind %s", field.Kind())
		}
		if f.Empty() {
			t.Errorf("with %s it is empty", reflect.TypeFor[Filter]().Field(i).Name)
		}
	}
}
