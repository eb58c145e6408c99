// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sdtrace/sdtrace/internal/enrich/machines"
	"github.com/sdtrace/sdtrace/internal/history"
	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/internal/why/look"
	"github.com/sdtrace/sdtrace/pkg/capture"
)

// background is a capture that is shown nowhere.
type background struct {
	live     *capture.Live
	recorder *history.Recorder
	ended    chan error
}

// startCapture captures what is sent below the root of a service manager's control groups, "" for everything, beside
// what else is done, and gives it to other sinks, too.
func startCapture(ctx context.Context, root string, sinks ...capture.Sink) (*background, error) {
	var match capture.Match
	if root != "" {
		match.Cgroups = []string{root}
	}
	live, err := capture.Open(ctx, capture.Options{Match: match})
	if err != nil {
		return nil, err
	}
	b := &background{live: live, ended: make(chan error, 1)}
	b.recorder = history.NewRecorder(history.About{PID: os.Getpid(), Began: time.Now(), Receipts: live.Has(capture.Receipts)})
	go func() { b.ended <- live.Copy(append(sinks, b.recorder)...) }()
	return b, nil
}

// told is what was captured by now.
func (b *background) told(_ context.Context, texts ...string) []history.Told {
	return []history.Told{b.recorder.Told(texts...)}
}

func (b *background) close() error {
	return errors.Join(b.live.Stop(), <-b.ended, b.live.Close())
}

// follow answers for the next start of a unit.
func (f *whyFlags) follow(a *answers, managers []machines.Manager, unit string) (err error) {
	ctx, stop := context.WithCancel(a.cmd.Context())
	defer stop()
	l, err := lookerOf(context.WithoutCancel(ctx), managers, unit)
	if err != nil {
		return a.missing(err)
	}
	defer l.Close()
	// It goes on when the context that waits has ended.
	b, err := startCapture(context.WithoutCancel(ctx), l.Root())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if f.timeout > 0 {
		defer time.AfterFunc(f.timeout, stop).Stop()
	}
	stderr := a.cmd.ErrOrStderr()
	after := look.Now()
	if f.restart {
		fmt.Fprintf(stderr, "sdtrace: restarting %s\n", unit)
		if err := l.Restart(ctx, unit); err != nil {
			return fmt.Errorf("restarting %s: %w", unit, err)
		}
	} else {
		fmt.Fprintf(stderr, "sdtrace: waiting for %s to be started, Ctrl-C ends\n", unit)
	}
	c, err := l.Follow(ctx, unit, after, b.told, func(c *why.Case) {
		fmt.Fprintf(stderr, "sdtrace: %s: %s\n", unit, render.State(c))
	})
	if err != nil {
		return err
	}
	if err := a.write(c); err != nil {
		return err
	}
	return a.end()
}

// lookerOf looks at the first service manager that has a unit. The error is [look.ErrNoUnit] if none has.
func lookerOf(ctx context.Context, managers []machines.Manager, unit string) (*look.Looker, error) {
	for i := range managers {
		l := look.New(ctx, managers[i])
		switch _, err := l.Unit(ctx, unit, nil); {
		case err == nil:
			return l, nil
		case !errors.Is(err, look.ErrNoUnit):
			l.Close()
			return nil, err
		}
		l.Close()
	}
	return nil, fmt.Errorf("%s: %w", unit, look.ErrNoUnit)
}

// missing says that there is no such unit, or what else is wrong.
func (a *answers) missing(err error) error {
	if errors.Is(err, look.ErrNoUnit) {
		return &exitError{status: exitUnknown, err: err}
	}
	return err
}
