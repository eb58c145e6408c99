// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lookup is what is behind the names, with an answer that the test sets.
type lookup struct {
	answer string
	hangs  bool
	goOn   chan struct{} // what hangs goes on when it is closed

	mu    sync.Mutex
	asked []Key
}

func (l *lookup) find(_ context.Context, c Key) Name {
	l.mu.Lock()
	l.asked = append(l.asked, c)
	l.mu.Unlock()
	if l.hangs {
		<-l.goOn
	}
	return Name{Container: l.answer}
}

// inBubble runs f on a clock that stands still while anything runs.
func inBubble(t *testing.T, l *lookup, f func(t *testing.T, n *Names)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l.goOn = make(chan struct{})
		n := watch(l.find)
		defer n.Close()
		f(t, n)
	})
}

func check(t *testing.T, n *Names, c Key, want string) {
	t.Helper()
	if got, known := n.Name(c); got.Container != want || known != (want != "") {
		t.Errorf("got %q and %v, want %q", got, known, want)
	}
}

var web = Key{Runtime: "docker", ID: idA, Cgroup: "/docker/" + idA}

func TestANameIsFoundBesideTheStream(t *testing.T) {
	l := &lookup{answer: "web", hangs: true}
	inBubble(t, l, func(t *testing.T, n *Names) {
		check(t, n, web, "")
		check(t, n, web, "")
		close(l.goOn)
		synctest.Wait()
		check(t, n, web, "web")
		inside := web
		inside.Cgroup += "/init.scope"
		check(t, n, inside, "web")
		synctest.Wait()
		if len(l.asked) != 1 || l.asked[0] != web {
			t.Errorf("looked for %+v, want once for %+v", l.asked, web)
		}
	})
}

func TestNothingWaitsForALookThatHangs(t *testing.T) {
	l := &lookup{answer: "web", hangs: true}
	inBubble(t, l, func(t *testing.T, n *Names) {
		began := time.Now()
		for i := range 2 * waitingMax {
			check(t, n, Key{ID: fmt.Sprintf("%064x", i)}, "")
		}
		check(t, n, web, "")
		if passed := time.Since(began); passed != 0 {
			t.Errorf("Name waited for %v", passed)
		}
		if name, known := n.NameWithin(web, 100*time.Millisecond); known || time.Since(began) != 100*time.Millisecond {
			t.Errorf("Await returned %q after %v", name, time.Since(began))
		}
		close(l.goOn)
	})
}

func TestAwaitReturnsAsSoonAsTheNameIsFound(t *testing.T) {
	l := &lookup{answer: "web", hangs: true}
	inBubble(t, l, func(t *testing.T, n *Names) {
		began := time.Now()
		time.AfterFunc(30*time.Millisecond, func() { close(l.goOn) })
		if name, known := n.NameWithin(web, 100*time.Millisecond); !known || name.Container != "web" || time.Since(began) != 30*time.Millisecond {
			t.Errorf("got %q after %v, want web after 30ms", name, time.Since(began))
		}
		if name, _ := n.NameWithin(web, 0); name.Container != "web" {
			t.Errorf("got %q of a known name without waiting", name)
		}
	})
}

func TestNameWithinDoesNotWaitTwiceForWhatHasNoName(t *testing.T) {
	inBubble(t, &lookup{}, func(t *testing.T, n *Names) {
		began := time.Now()
		for range 3 {
			if name, known := n.NameWithin(web, time.Second); known {
				t.Errorf("got %q", name)
			}
		}
		if passed := time.Since(began); passed != 0 {
			t.Errorf("waited for %v", passed)
		}
	})
}

func TestWhatIsWrittenDownLaterIsFoundLater(t *testing.T) {
	l := &lookup{}
	inBubble(t, l, func(t *testing.T, n *Names) {
		check(t, n, web, "")
		synctest.Wait()
		check(t, n, web, "")
		synctest.Wait()
		if len(l.asked) != 1 {
			t.Fatalf("looked %d times at once, want once", len(l.asked))
		}
		l.answer = "web"
		time.Sleep(againFirst)
		check(t, n, web, "")
		synctest.Wait()
		check(t, n, web, "web")
	})
}

func TestWhatIsNeverWrittenDownIsLookedForLessAndLess(t *testing.T) {
	l := &lookup{}
	inBubble(t, l, func(t *testing.T, n *Names) {
		const hour = time.Hour
		for began := time.Now(); time.Since(began) < hour; time.Sleep(againFirst) {
			n.Name(web)
			synctest.Wait()
		}
		// Ten times in the first minute, then once in each.
		if got := len(l.asked); got < 60 || got > 75 {
			t.Errorf("looked %d times in an hour", got)
		}
	})
}

func TestARenamedContainerIsCalledByItsNewName(t *testing.T) {
	l := &lookup{answer: "web"}
	inBubble(t, l, func(t *testing.T, n *Names) {
		n.NameWithin(web, time.Second)
		l.answer = "other"
		check(t, n, web, "web")
		time.Sleep(againFound)
		check(t, n, web, "web")
		synctest.Wait()
		check(t, n, web, "other")
		l.answer = "" // it is removed
		time.Sleep(againFound)
		check(t, n, web, "other")
		synctest.Wait()
		check(t, n, web, "other")
	})
}

func TestMemoryIsBounded(t *testing.T) {
	inBubble(t, &lookup{answer: "x"}, func(t *testing.T, n *Names) {
		for i := range 10 * containersMax {
			n.NameWithin(Key{ID: fmt.Sprintf("%064x", i)}, time.Second)
		}
		if len(n.byContainer) > containersMax {
			t.Errorf("%d containers are remembered, want %d at most", len(n.byContainer), containersMax)
		}
	})
}

func TestAnIDThatIsAPathIsNotLookedFor(t *testing.T) {
	l := &lookup{answer: "x"}
	inBubble(t, l, func(t *testing.T, n *Names) {
		for _, id := range []string{"", "web", "../../etc", idA[:63] + "/", idA + "a", idA[:63] + "*"} {
			check(t, n, Key{ID: id}, "")
			if _, known := n.NameWithin(Key{ID: id}, time.Second); known {
				t.Errorf("%q has a name", id)
			}
		}
		synctest.Wait()
		if len(l.asked) > 0 {
			t.Errorf("looked for %+v", l.asked)
		}
	})
}

// A user can make a control group that is called like a container of root's. What this
// user says of it must not count for the real one.
func TestTheSameIDInAnotherControlGroupIsAnotherContainer(t *testing.T) {
	l := &lookup{answer: "fake"}
	inBubble(t, l, func(t *testing.T, n *Names) {
		n.NameWithin(Key{Runtime: "docker", ID: idA, Cgroup: "/user.slice/user-1000.slice/docker-" + idA + ".scope"}, time.Second)
		l.answer = "web"
		if name, _ := n.NameWithin(web, time.Second); name.Container != "web" {
			t.Errorf("got %q, want web", name)
		}
	})
}

func TestCloseEndsTheWaiting(t *testing.T) {
	l := &lookup{hangs: true}
	inBubble(t, l, func(t *testing.T, n *Names) {
		began := time.Now()
		time.AfterFunc(time.Second, n.Close)
		n.NameWithin(web, time.Hour)
		if passed := time.Since(began); passed != time.Second {
			t.Errorf("waited for %v, want 1s", passed)
		}
		close(l.goOn)
	})
}

func TestOfManyContainersEachIsLookedForMoreRarely(t *testing.T) {
	asked := func(containers int) (each float64) {
		l := &lookup{answer: "web"}
		inBubble(t, l, func(t *testing.T, n *Names) {
			for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Second) {
				for i := range containers {
					n.Name(Key{ID: fmt.Sprintf("%064x", i)})
					if i%workers == 0 {
						synctest.Wait()
					}
				}
			}
		})
		return float64(len(l.asked)) / float64(containers)
	}
	few, many := asked(crowd/10), asked(5*crowd)
	if few < 5 || many > few/3 || many < 1 {
		t.Errorf("in a minute each of a few containers is looked for %.1f times, and of many %.1f times", few, many)
	}
}
