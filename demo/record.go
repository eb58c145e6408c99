// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// event is what the demo looks at of an event in JSON.
type event struct {
	Type    string `json:"type"`
	Payload string `json:"payload"`
	Sender  struct {
		Comm      string `json:"comm"`
		Container struct {
			ID string `json:"id"`
		} `json:"container"`
	} `json:"sender"`
}

func readRecord(name string) ([]event, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the record: %w", err)
	}
	defer file.Close()
	var all []event
	for lines := json.NewDecoder(file); ; {
		var e event
		if err := lines.Decode(&e); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("decoding the record: %w", err)
		}
		if e.Type == "send" {
			all = append(all, e)
		}
	}
}
