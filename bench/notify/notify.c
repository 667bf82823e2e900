/*
 * The yardstick of the supervisor's loop: the least that answering a notified call can cost. It starts a command under
 * a filter that notifies getppid alone, and answers "continue" in a loop of two system calls, with SYNC_WAKE_UP. It can
 * be told nothing else, not even to stop: a real supervisor cannot do with less. With "poll" first it polls the
 * listener before each receive, as supervisors do that watch more than the listener. Static, as spawn.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static int listen_for_getppid(void)
{
	struct sock_filter insns[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(insns) / sizeof(*insns), insns };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		       SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &prog);
}

/* The last user of the filter is gone: only poll says so before Linux 6.11, and then RECV fails too. */
static int over(int listener)
{
	struct pollfd p = { listener, POLLIN, 0 };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

static void serve(int listener, int with_poll)
{
	struct seccomp_notif n;
	struct seccomp_notif_resp r;
	struct pollfd p = { listener, POLLIN, 0 };

	ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
	for (;;) {
		if (with_poll && (poll(&p, 1, -1) != 1 || !(p.revents & POLLIN)))
			return;
		memset(&n, 0, sizeof(n));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n)) {
			if (over(listener))
				return;
			continue;
		}
		memset(&r, 0, sizeof(r));
		r.id = n.id;
		r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
	}
}

int main(int argc, char **argv)
{
	int with_poll = argc > 1 && !strcmp(argv[1], "poll");
	int report[2], listener, status;
	pid_t pid;

	argv += 1 + with_poll;
	if (!*argv || pipe(report)) {
		fprintf(stderr, "usage: notify [poll] PROGRAM ARG...\n");
		return 2;
	}
	/* A fork that shares the descriptor table, so that the listener is the parent's too. */
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (!pid) {
		listener = listen_for_getppid();
		if (write(report[1], &listener, sizeof(listener)) < 0 || unshare(CLONE_FILES))
			_exit(126);
		close(listener);
		execv(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || read(report[0], &listener, sizeof(listener)) != sizeof(listener) || listener < 0) {
		fprintf(stderr, "notify: no listener: %s\n", strerror(errno));
		return 125;
	}
	serve(listener, with_poll);
	if (waitpid(pid, &status, 0) < 0)
		return 125;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
