// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sdtrace/sdtrace/internal/access"
	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/internal/proc"
)

func TestTroubleIsWhatIsInTheWayOfNotifications(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	const nobody = 65534
	base := holdertest.Dir(t)
	mode(t, base, 0o755)
	for _, dir := range []string{"/closed", "/root"} {
		if err := os.Mkdir(base+dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	bind(t, "unixgram", base+"/notify")
	mode(t, base+"/notify", 0o777)
	bind(t, "unixgram", base+"/mine")
	mode(t, base+"/mine", 0o755)
	bind(t, "unixgram", base+"/closed/notify")
	bind(t, "unix", base+"/stream")
	mode(t, base+"/stream", 0o777)
	abandoned := bind(t, "unixgram", base+"/abandoned")
	mode(t, base+"/abandoned", 0o777)
	if err := abandoned.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(base+"/file", nil, 0o777); err != nil {
		t.Fatal(err)
	}
	mode(t, base+"/file", 0o777)
	for name, test := range map[string]struct {
		env  []string
		root string
		want string // BASE stands for the directory
	}{
		"none":         {[]string{"NOTIFY_SOCKET=" + base + "/notify"}, "", ""},
		"abstract":     {[]string{"NOTIFY_SOCKET=@x"}, "", ""},
		"no variable":  {[]string{"HOME=/"}, "", "it was executed without NOTIFY_SOCKET"},
		"no file":      {[]string{"NOTIFY_SOCKET=" + base + "/x"}, "", "there is no BASE/x"},
		"another root": {[]string{"NOTIFY_SOCKET=/run/x"}, base + "/root", "there is no /run/x below its root directory BASE/root"},
		"a directory":  {[]string{"NOTIFY_SOCKET=" + base + "/closed/notify"}, "", "uid 65534 may not search the directory BASE/closed (mode 0700, of 0:0)"},
		"a socket":     {[]string{"NOTIFY_SOCKET=" + base + "/mine"}, "", "uid 65534 may not write to the socket BASE/mine (mode 0755, of 0:0)"},
		"no socket":    {[]string{"NOTIFY_SOCKET=" + base + "/file"}, "", "BASE/file is no socket"},
		"another type": {[]string{"NOTIFY_SOCKET=" + base + "/stream"}, "", "BASE/stream is a socket of another type"},
		"nobody's":     {[]string{"NOTIFY_SOCKET=" + base + "/abandoned"}, "", "nobody reads from BASE/abandoned"},
		"overwritten":  {[]string{"title"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", waitRole, test.root)
			cmd.Env = test.env
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			if test.root != "" {
				cmd.SysProcAttr = nil // it takes root's rights to have another root directory
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
			var problem string
			if _, err := fmt.Fscanln(out, &problem); err != nil || problem != "<nil>" {
				t.Fatalf("%s, %v", problem, err)
			}

			p, err := proc.Open(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if got := strings.ReplaceAll(access.Trouble(p), base, "BASE"); got != test.want {
				t.Errorf("trouble: %q, want %q", got, test.want)
			}
		})
	}
}

// bind makes a socket.
func bind(t *testing.T, network, path string) interface{ Close() error } {
	t.Helper()
	if network == "unix" {
		l, err := net.Listen(network, path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	c, err := net.ListenUnixgram(network, &net.UnixAddr{Net: network, Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
