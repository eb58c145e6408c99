// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"slices"
)

// notInEnvironment is seen by a main process that was executed without NOTIFY_SOCKET.
func notInEnvironment(c *Case) *Finding {
	p := c.Main()
	if !c.silent() || p == nil || p.Executed == nil || p.Executed.NotifySocket != nil {
		return nil
	}
	f := &Finding{
		Certainty: Certain,
		Because:   fmt.Sprintf("the main process %s was executed without NOTIFY_SOCKET, so it cannot say READY=1", p),
		Change:    "let what starts it keep the variable (env, sudo and su drop it)",
	}
	switch {
	case slices.Contains(c.Service.Unset, "NOTIFY_SOCKET"):
		f.Because = fmt.Sprintf("UnsetEnvironment=NOTIFY_SOCKET takes the variable away from %s, so it cannot say READY=1", p)
		f.Change = "remove NOTIFY_SOCKET from UnsetEnvironment="
	case c.Service.Now.NotifyAccess == "none":
		f.Because = fmt.Sprintf("NotifyAccess=none: the service manager gives %s no NOTIFY_SOCKET", p)
		f.Change = "set NotifyAccess=main"
	case c.Service.Program != "" && p.Exe != "" && c.Service.Program != p.Exe:
		f.Because = fmt.Sprintf("%s was executed without NOTIFY_SOCKET, which ExecStart=%s has dropped (env -i, sudo "+
			"and su do), so it cannot say READY=1",
			p, c.Service.Program)
		f.Change = "let it keep the variable: env NOTIFY_SOCKET=$NOTIFY_SOCKET, sudo --preserve-env=NOTIFY_SOCKET, or " +
			"User= instead of sudo and su"
	}
	return f
}

// silent reports whether READY=1 is waited for, and the unit has sent no such thing, as far as is known.
func (c *Case) silent() bool {
	if c.Phase() != Starting || !c.Notifies() {
		return false
	}
	s := c.Latest("READY")
	if s != nil && s.Verdict == nil && s.Event.Socket.Inode != 0 && c.Manager.Inode != 0 && uint32(s.Event.Socket.Inode) != c.Manager.Inode {
		return true // to another socket
	}
	return s == nil || s.Event.Result.Failed()
}
