package exec_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_supervisor_8_39_40_41_time_start(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		y2000 := b.Policy(b.Base(seeded(`time_start: "2000-06-15T08:00:00Z"`)))
		wantRun(t, b.Run(y2000, "date", "+%Y"), 0, "2000")
		wantRun(t, b.Run(b.Policy(b.Base(seeded(`time_start: "2001-09-09T01:46:40Z"`))), "echo", "ok"), 0, "ok")
		both := b.Policy(b.Base(seeded(`time_start: "2001-09-09T01:46:40Z", random_seed: 42`)))
		wantRun(t, b.Run(both, "echo", "ok"), 0, "ok")
		wantRun(t, b.Run(both, "date", "-u", "+%Y-%m-%d %H"), 0, "2001-09-09 01")
		now := time.Now().UTC().Format("2006")
		wantRun(t, b.Run(b.Policy(b.Base(seeded(""))), "date", "-u", "+%Y"), 0, now)
		wantRun(t, b.Run("", "date", "-u", "+%Y"), 0, now)
	})
}

func Test_time_start_is_shown_by_every_clock(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, start := range []string{"2000-06-15T08:00:00Z", "2100-06-15T08:00:00Z", "1970-06-15T00:00:00Z", "1905-06-15T00:00:00Z"} {
			for _, more := range []string{"", ", no_randomize_memory: true"} {
				policy := b.Policy(b.Base(seeded(fmt.Sprintf("time_start: %q%s", start, more))))
				year := start[:4]
				if got, want := b.Attempt(policy, "clocks"), "value "+year+" agree=true steady=true"; got != want {
					t.Errorf("%s%s: %q, want %q", start, more, got, want)
				}
				// After shells, in another process and in the same.
				script := fmt.Sprintf("date -u +%%Y; /bin/sh -c 'exec date -u +%%Y'; /bin/sh -c 'exec %s exec %s clocks'", b.Probe, b.Probe)
				wantRun(t, b.Sh(policy, script), 0, year+"\n"+year+"\nvalue "+year+" agree=true steady=true")
			}
		}
		if got, want := b.Control("clocks"), "value "+time.Now().UTC().Format("2006")+" agree=true steady=true"; got != want {
			t.Errorf("outside: %q, want %q", got, want)
		}
	})
}

// A deadline of the sandbox's clock that the host takes for its own would be over at once, or never.
func Test_time_start_and_deadlines(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, start := range []string{"2000-06-15T08:00:00Z", "2100-06-15T08:00:00Z"} {
			policy := b.Policy(b.Base(seeded(fmt.Sprintf("time_start: %q", start))))
			for _, how := range []string{"clock_nanosleep", "futex", "futex_lock_pi", "futex_waitv", "timerfd", "timer"} {
				t.Run(start[:4]+"_"+how, func(t *testing.T) {
					t.Parallel()
					b := b.In(t)
					want := "value waited=true kept=true"
					if got := b.Attempt(policy, "wait-until", how, "150"); got != want {
						t.Errorf("%q, want %q", got, want)
					}
					if got := b.Control("wait-until", how, "150"); got != want {
						t.Errorf("outside: %q, want %q", got, want)
					}
					// What has passed has passed.
					if got := b.Attempt(policy, "wait-until", how, "-100000000"); !strings.HasPrefix(got, "value waited=true") {
						t.Errorf("in the past: %q, want an end", got)
					}
				})
			}
		}
	})
}

// A series of deadlines, each made from the last one. Alone: between one and the next there is little time to put back what
// was changed.
func Test_time_start_and_series_of_deadlines(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, start := range []string{"2000-06-15T08:00:00Z", "2100-06-15T08:00:00Z"} {
			policy := b.Policy(b.Base(seeded(fmt.Sprintf("time_start: %q", start))))
			for _, length := range []string{"200", "1900", "2500"} {
				t.Run(start[:4]+"_"+length, func(t *testing.T) {
					if got, want := b.In(t).Attempt(policy, "wait-often", "50", length), "value waited=true kept=true"; got != want {
						t.Errorf("every %s µs: %q, want %q", length, got, want)
					}
				})
			}
		}
	})
}

// What a C library makes of it, linked both ways.
const libraryClocks = `
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

static const struct timespec past = {1, 0}; /* read-only */

static double since(struct timespec *a) {
	struct timespec b;
	clock_gettime(CLOCK_MONOTONIC, &b);
	return b.tv_sec - a->tv_sec + (b.tv_nsec - a->tv_nsec) / 1e9;
}

static void soon(struct timespec *t) {
	t->tv_nsec += 200000000;
	if (t->tv_nsec >= 1000000000) {
		t->tv_sec++;
		t->tv_nsec -= 1000000000;
	}
}

int main() {
	struct timespec now, until, mono;
	struct timeval day;
	struct tm tm;
	time_t t = time(NULL), stored;
	clock_gettime(CLOCK_REALTIME, &now);
	gettimeofday(&day, NULL);
	time(&stored);
	gmtime_r(&now.tv_sec, &tm);
	printf("%d %d %d %d\n", 1900 + tm.tm_year, now.tv_sec - t < 60, day.tv_sec - t < 60, stored - t < 60);

	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	sem_t s;
	sem_init(&s, 0, 0);
	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &until);
	soon(&until);
	now = until;
	sem_timedwait(&s, &until);
	printf("sem_timedwait %d %d\n", since(&mono) > 0.19, until.tv_sec == now.tv_sec && until.tv_nsec == now.tv_nsec);

	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &until);
	soon(&until);
	now = until;
	pthread_mutex_lock(&m);
	pthread_cond_timedwait(&c, &m, &until);
	printf("pthread_cond_timedwait %d %d\n", since(&mono) > 0.19, until.tv_sec == now.tv_sec && until.tv_nsec == now.tv_nsec);

	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &until);
	soon(&until);
	now = until;
	pthread_mutex_timedlock(&m, &until);
	printf("pthread_mutex_timedlock %d %d\n", since(&mono) > 0.19, until.tv_sec == now.tv_sec && until.tv_nsec == now.tv_nsec);

	printf("past %d\n", sem_timedwait(&s, &past) == -1 && clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &past, NULL) == 0);
	return 0;
}
`

func Test_time_start_in_a_C_library(t *testing.T) {
	compiler, err := exec.LookPath("gcc")
	if err != nil {
		exectest.Lacks(t, err)
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		source := b.File(b.Work+"/clocks.c", libraryClocks)
		for name, flags := range map[string][]string{"dynamic": nil, "static": {"-static"}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b, program := b.In(t), b.Work+"/"+name
				build := exec.Command(compiler, append(flags, "-o", program, source, "-lpthread")...)
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("build: %v\n%s", err, out)
				}
				if err := os.Chmod(program, 0o755); err != nil {
					t.Fatal(err)
				}
				waits := "\nsem_timedwait 1 1\npthread_cond_timedwait 1 1\npthread_mutex_timedlock 1 1\npast 1"
				for _, year := range []string{"2000", "2100"} {
					policy := b.Policy(b.Base(seeded(fmt.Sprintf(`time_start: "%s-06-15T08:00:00Z"`, year))))
					wantRun(t, b.Run(policy, program), 0, year+" 1 1 1"+waits)
				}
				wantRun(t, b.Run("", program), 0, time.Now().UTC().Format("2006")+" 1 1 1"+waits)
			})
		}
	})
}

func Test_time_start_python(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := `
import datetime, os, random, threading, time, uuid
print(datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H"), time.gmtime().tm_year, int(time.time()) // 86400)
print(random.random(), uuid.uuid4(), os.urandom(8).hex(), hash("x"))
before = time.monotonic()
threading.Event().wait(0.2)
time.sleep(0.2)
print(time.monotonic() - before >= 0.4)
`
		policy := b.Policy(b.Base(seeded(`time_start: "2000-06-15T08:00:00Z", random_seed: 7`)))
		one, two := b.Run(policy, py, "-c", script), b.Run(policy, py, "-c", script)
		if one.Code != 0 || one.Stdout != two.Stdout || !strings.HasPrefix(one.Stdout, "2000-06-15 08 2000 11123\n") || !strings.HasSuffix(one.Stdout, "\nTrue\n") {
			t.Errorf("%q, then %q, want the same twice, from 2000-06-15\n%s", one.Stdout, two.Stdout, one.Stderr)
		}
		if outside := b.Run("", py, "-c", script); outside.Code != 0 || strings.HasPrefix(outside.Stdout, "2000") {
			t.Errorf("outside: exit %d, %q", outside.Code, outside.Stdout)
		}
	})
}
