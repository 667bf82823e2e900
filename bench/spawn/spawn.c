/*
 * The yardstick: start a program and wait for it, with nothing else in the process. Static, since a dynamic loader
 * would be a third of what is measured.
 */
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv)
{
	pid_t pid;
	int status, err;

	if (argc < 2) {
		fprintf(stderr, "usage: spawn PROGRAM ARG...\n");
		return 2;
	}
	err = posix_spawn(&pid, argv[1], NULL, NULL, argv + 1, environ);
	if (err) {
		fprintf(stderr, "spawn %s: %s\n", argv[1], strerror(err));
		return 127;
	}
	if (waitpid(pid, &status, 0) < 0)
		return 125;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
