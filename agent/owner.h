/* SPDX-License-Identifier: Apache-2.0 */
/* Whose a queue pair is, as the kernel tells over rdma netlink. Only devices of the kernel's are known there. */
#ifndef AGENT_OWNER_H
#define AGENT_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum owner {
	OWNER_IS,      /* it belongs to that process */
	OWNER_IS_NOT,  /* it belongs to another one, or there is no such queue pair */
	OWNER_UNKNOWN, /* the kernel did not say: the queue pair has no port before INIT, or the kernel has no rdma netlink */
};

/* A socket for owner_check; below 0: the kernel has none, and errno says why. */
int owner_open(void);
/* Asks the kernel, which answers at once: nothing here waits. `fd`: of owner_open, which is called again if it is below 0. `index`: the kernel's
 * number of the device, 0 before the first call for it; it is kept there. */
enum owner owner_check(int *fd, const char *device, uint32_t *index, uint32_t port, uint32_t qpn, pid_t pid);
/* The same of a queue pair that has no port yet: goes through all of the device. */
enum owner owner_search(int *fd, const char *device, uint32_t *index, uint32_t qpn, pid_t pid);

/* What a queue pair belongs to, from the nearest on. */
enum owner_parent { OWNER_DOMAIN, OWNER_CONTEXT, OWNER_PARENTS };

/* What an answer says; for tests. */
struct owner_answer {
	int error;       /* of the request, as a negative errno; 0: none */
	uint32_t index;  /* of the device of the name that was looked for; 0: it is not there */
	uint32_t pid;    /* 0: the answer has none */
	uint32_t qpn;
	uint32_t wanted; /* in a list */
	bool has_parent[OWNER_PARENTS];
	uint32_t parents[OWNER_PARENTS]; /* the kernel's numbers of them */
	bool is_kernels;                 /* no process has it */
	char device[64];                 /* "": the answer has none */
};
/* `length`: of all messages in `data`. `qpn`: the one that counts in a list; 0: the answer is no list of queue pairs. */
void owner_read(const void *data, size_t length, const char *wanted, uint32_t qpn, struct owner_answer *out);

#endif
