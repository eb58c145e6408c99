// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"io"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// WriteJSON writes the inventory as JSON Lines: first the sockets, each with
// "type":"socket", then the clients with "type":"client". docs/sockets.md says
// what the fields mean; addresses are written as by events.Escape. It holds no
// character that a terminal acts on.
func (inv *Inventory) WriteJSON(w io.Writer) error {
	var b []byte
	for i := range inv.Sockets {
		s := &inv.Sockets[i]
		b = events.AppendJSONLine(b, struct {
			Type    string `json:"type"`
			Address string `json:"address"`
			Path    string `json:"path,omitempty"`
			*Socket
		}{"socket", s.Address.String(), s.path(), s})
	}
	for i := range inv.Clients {
		c := &inv.Clients[i]
		b = events.AppendJSONLine(b, struct {
			Type         string `json:"type"`
			NotifySocket string `json:"notify_socket"`
			*Client
		}{"client", events.Escape(c.NotifySocket), c})
	}
	_, err := w.Write(b)
	return err
}

func (s *Socket) path() string {
	if s.File == nil {
		return ""
	}
	return s.File.Path.String()
}
