/* SPDX-License-Identifier: Apache-2.0 */
/* What one device context for all clients saves: the verbs objects of N clients on one shared context, or on one context each.
 * usage: sharing shared|each CLIENTS
 * A client has what securdma gives it: a protection domain, two completion queues, a queue pair and a registered ring and region of
 * 172 KiB. All clients of one context share its completion channel, as those of a worker do. Prints a line of JSON: contexts,
 * descriptors, threads and KiB of resident memory beyond what the process had before, and milliseconds. */
#include <securdma.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MEMORY = 172 << 10, DEPTH = 24, CLIENTS_MAX = 10000 };

struct client {
	struct srdma_device *device; /* with one context each */
	struct ibv_comp_channel *channel;
	struct ibv_pd *pd;
	struct ibv_cq *send_cq, *recv_cq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
};

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "sharing: %s: %s\n", what, srdma_error_text());
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static long entries(const char *path)
{
	DIR *directory = opendir(path);
	long count = 0;

	if (!directory)
		die(path);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static long resident_kib(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[256];
	long kib = -1;

	while (file && fgets(line, sizeof line, file))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kib = strtol(line + 6, NULL, 10);
	if (kib < 0)
		die("/proc/self/status");
	fclose(file);
	return kib;
}

static void open_context(struct srdma_device **device, struct ibv_comp_channel **channel)
{
	if (srdma_device_open(NULL, device) != 0)
		die("device");
	*channel = ibv_create_comp_channel(srdma_device_context(*device));
	if (!*channel)
		die("completion channel");
}

static void set_up(struct client *client, struct srdma_device *device, struct ibv_comp_channel *channel)
{
	struct ibv_context *context = srdma_device_context(device);
	struct ibv_qp_init_attr attr = {.qp_type = IBV_QPT_RC, .cap = {DEPTH, DEPTH, 1, 1, 64}};
	void *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	client->pd = ibv_alloc_pd(context);
	attr.send_cq = client->send_cq = ibv_create_cq(context, DEPTH, NULL, channel, 0);
	attr.recv_cq = client->recv_cq = ibv_create_cq(context, DEPTH, NULL, channel, 0);
	if (!client->pd || !client->send_cq || !client->recv_cq || memory == MAP_FAILED)
		die("protection domain or completion queue");
	client->qp = ibv_create_qp(client->pd, &attr);
	client->mr = ibv_reg_mr(client->pd, memory, MEMORY, IBV_ACCESS_LOCAL_WRITE);
	if (!client->qp || !client->mr)
		die("queue pair or memory region");
}

int main(int argc, char **argv)
{
	struct srdma_device *shared = NULL;
	struct ibv_comp_channel *channel = NULL;
	bool each = argc == 3 && strcmp(argv[1], "each") == 0;
	long count = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
	struct client *clients = calloc(CLIENTS_MAX, sizeof *clients);

	if (!clients || count < 1 || count > CLIENTS_MAX || (!each && strcmp(argv[1], "shared") != 0)) {
		fprintf(stderr, "usage: sharing shared|each CLIENTS\n");
		return 2;
	}
	long fds = entries("/proc/self/fd"), threads = entries("/proc/self/task"), kib = resident_kib();
	double began = now();
	if (!each)
		open_context(&shared, &channel);
	for (long i = 0; i < count; i++) {
		struct client *client = &clients[i];

		if (each)
			open_context(&client->device, &client->channel);
		set_up(client, each ? client->device : shared, each ? client->channel : channel);
	}
	double ms = now() - began;
	/* The process's end releases everything. */
	printf("{\"contexts\": %ld, \"descriptors\": %ld, \"threads\": %ld, \"kib\": %ld, \"ms\": %.3f}\n", each ? count : 1,
	       entries("/proc/self/fd") - fds, entries("/proc/self/task") - threads, resident_kib() - kib, ms);
	return 0;
}
