/* SPDX-License-Identifier: Apache-2.0 */
/* uroce resources: which process has how many objects, and which ports of rdma_cm, as `rdma resource` tells for devices of the kernel. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define X(name) #name,
static const char *const kinds[] = {OBJECTS(X)};
#undef X
enum { KINDS = sizeof kinds / sizeof kinds[0] };

struct holder {
	long pid;
	ino_t block; /* a forked child has its parent's */
	char command[16 + 1];
	int64_t objects[KINDS];
	struct port *ports;
	size_t port_count;
};

struct holders {
	struct holder *all;
	size_t count;
	unsigned unreadable; /* processes of other users */
	unsigned foreign;    /* of other versions of uroce */
};

static void read_command(int process, char *command, size_t size)
{
	int fd = openat(process, "comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, command, size - 1);

	if (fd >= 0)
		close(fd);
	command[n > 0 ? n : 0] = '\0';
	command[strcspn(command, "\n")] = '\0';
	/* Any process may call itself anything. */
	for (char *c = command; *c; c++)
		if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
			*c = '?';
}

/* 0 or -ENOMEM. */
static int add(struct holders *holders, long pid, int process, DIR *fds, int fd)
{
	struct counters counters;
	struct holder *grown;
	struct holder holder = {.pid = pid};
	struct stat st;
	size_t kind = 0;

	if (!counters_read(fd, &counters)) {
		holders->foreign += errno == EPROTO;
		return 0;
	}
#define X(name) holder.objects[kind++] = atomic_load_explicit(&counters.objects.name, memory_order_relaxed);
	OBJECTS(X)
#undef X
	if (fstat(fd, &st) < 0)
		return 0;
	holder.block = st.st_ino;
	/* /proc is read in the order of the numbers, so the first one that has a block is the oldest, until they wrap. */
	for (size_t i = 0; i < holders->count; i++)
		if (holders->all[i].block == holder.block)
			return 0;
	read_command(process, holder.command, sizeof holder.command);
	grown = reallocarray(holders->all, holders->count + 1, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	if (atomic_load_explicit(&counters.objects.cm_id, memory_order_relaxed) > 0)
		holder.port_count = ports_of(process, fds, &holder.ports);
	grown[holders->count++] = holder;
	holders->all = grown;
	return 0;
}

static int look_at(struct holders *holders, DIR *proc, const char *name)
{
	int process = openat(dirfd(proc), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fds = process < 0 ? -1 : openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fds < 0 ? NULL : fdopendir(fds);
	int error = 0;

	if (directory) {
		int fd = counters_find(directory);

		if (fd >= 0) {
			error = add(holders, strtol(name, NULL, 10), process, directory, fd);
			close(fd);
		}
		closedir(directory);
	} else {
		holders->unreadable += errno == EACCES; /* else it has just ended */
		if (fds >= 0)
			close(fds);
	}
	if (process >= 0)
		close(process);
	return error;
}

/* Those of rdma_cm, as `rdma resource show cm_id` has its listeners. */
static void print_ports(const struct holders *holders)
{
	bool any = false;

	for (const struct holder *holder = holders->all; holder < holders->all + holders->count; holder++)
		for (const struct port *port = holder->ports; port < holder->ports + holder->port_count; port++) {
			if (!any)
				printf("\n%10s %-16s %-5s %5s %s\n", "pid", "command", "space", "port", "address");
			any = true;
			printf("%10ld %-16s %-5s %5u %s\n", holder->pid, holder->command, port->space, port->number, port->address);
		}
}

static void print_text(const struct holders *holders)
{
	int64_t sums[KINDS] = {0};

	printf("%10s %-16s", "pid", "command");
	for (size_t kind = 0; kind < KINDS; kind++)
		printf(" %7s", kinds[kind]);
	putchar('\n');
	for (const struct holder *holder = holders->all; holder < holders->all + holders->count; holder++) {
		printf("%10ld %-16s", holder->pid, holder->command);
		for (size_t kind = 0; kind < KINDS; kind++) {
			printf(" %7" PRId64, holder->objects[kind]);
			sums[kind] += holder->objects[kind];
		}
		putchar('\n');
	}
	printf("%10s %-16s", "", "all");
	for (size_t kind = 0; kind < KINDS; kind++)
		printf(" %7" PRId64, sums[kind]);
	putchar('\n');
	print_ports(holders);
}

static void print_json(const struct holders *holders)
{
	printf("{\"processes\": [");
	for (size_t i = 0; i < holders->count; i++) {
		const struct holder *holder = &holders->all[i];

		printf("%s{\"pid\": %ld, \"command\": \"%s\", \"objects\": {", i ? ", " : "", holder->pid, holder->command);
		for (size_t kind = 0; kind < KINDS; kind++)
			printf("%s\"%s\": %" PRId64, kind ? ", " : "", kinds[kind], holder->objects[kind]);
		printf("}, \"ports\": [");
		for (size_t j = 0; j < holder->port_count; j++) {
			const struct port *port = &holder->ports[j];
			printf("%s{\"space\": \"%s\", \"port\": %u, \"address\": \"%s\"}", j ? ", " : "", port->space, port->number, port->address);
		}
		printf("]}");
	}
	printf("]}\n");
}

static void free_holders(struct holders *holders)
{
	for (size_t i = 0; i < holders->count; i++)
		free(holders->all[i].ports);
	free(holders->all);
}

int cmd_resources(int argc, char **argv)
{
	struct holders holders = {0};
	struct dirent *entry;
	bool json = argc == 2 && strcmp(argv[1], "--json") == 0;
	int error = 0;

	if (argc > 1 && !json)
		return fail(EXIT_USAGE, "resources: unexpected argument \"%s\"; usage: uroce resources [--json]", argv[1]);
	DIR *proc = opendir("/proc");
	if (!proc)
		return fail(EXIT_FAILURE, "/proc: %s", strerror(errno));
	while (!error && (entry = readdir(proc)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			error = look_at(&holders, proc, entry->d_name);
	closedir(proc);
	if (error) {
		free_holders(&holders);
		return fail(EXIT_FAILURE, "resources: %s", strerror(-error));
	}
	if (json)
		print_json(&holders);
	else
		print_text(&holders);
	free_holders(&holders);
	if (holders.foreign)
		fail(0, "%u processes run another version of uroce and are not shown", holders.foreign);
	if (holders.unreadable && !json)
		fail(0, "%u processes of other users are not shown, because this user may not read theirs", holders.unreadable);
	return fflush(stdout) == 0 ? EXIT_SUCCESS : fail(EXIT_FAILURE, "standard output: %s", strerror(errno));
}
