// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"encoding/json"
	"io"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// WriteJSON writes the inventory as JSON Lines: first the sockets, each with
// "type":"socket", then the clients with "type":"client". docs/sockets.md says
// what the fields mean; addresses are written as by events.FormatAddress.
func (inv *Inventory) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range inv.Sockets {
		s := &inv.Sockets[i]
		err := enc.Encode(struct {
			Type    string `json:"type"`
			Address string `json:"address"`
			Path    string `json:"path,omitempty"`
			*Socket
		}{"socket", events.FormatAddress(s.Address), s.path(), s})
		if err != nil {
			return err
		}
	}
	for i := range inv.Clients {
		c := &inv.Clients[i]
		err := enc.Encode(struct {
			Type         string `json:"type"`
			NotifySocket string `json:"notify_socket"`
			*Client
		}{"client", events.FormatAddress(c.NotifySocket), c})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Socket) path() string {
	if s.File == nil {
		return ""
	}
	return events.FormatAddress(s.File.Path)
}
