/* SPDX-License-Identifier: Apache-2.0 */
/* Management datagrams, as the files that they are handled by see them. All under the device's lock. */
#ifndef UROCE_GSI_PARTS_H
#define UROCE_GSI_PARTS_H

#include <sys/socket.h>
#include <sys/un.h>

#include "gsi.h"

enum { GSI_TOGETHER = 32 /* notes that go in one message */ };

/* A message between processes of one host. Another user's process may send one too: what it says is no more to be believed than what
 * comes from the network. */
struct gsi_note {
	uint32_t version;
	uint8_t tclass;
	uint8_t hop_limit;
	uint8_t unused[2];
	union ibv_gid source;
	union ibv_gid destination;
	uint8_t bytes[MAD_BYTES];
};

struct waiting;

/* What is not delivered yet: gsi_wait.c. */
struct gsi_wait {
	struct waiting *first; /* oldest first */
	struct waiting **last;
	unsigned notes;
	unsigned requests; /* of these: nobody listens for them */
	uint64_t pause;    /* before they are tried again */
	struct timer timer;
};

struct gsi {
	struct device *device;
	struct gsi_wait wait;
	gsi_take *take; /* NULL: this process wants none */
	void *arg;
	uint32_t prefix;
	uint32_t psn;
	int out_fd;
	int *sockets; /* by place; -1: free */
	unsigned places;
};

/* ---- gsi.c ---- */

/* 0, -EAGAIN: the receiver has no room now, or this process has no means; others: nobody has the name. */
int gsi_try_notes(struct gsi *gsi, const struct gsi_note *notes, size_t count, const struct sockaddr_un *name, socklen_t length);
/* To the process of this host that it is for. False: nobody is there. */
bool gsi_try_owner(struct gsi *gsi, const struct mad *mad, const struct gsi_note *note);
/* Answers for a process that is not there. */
void gsi_refuse(struct gsi *gsi, const struct mad *mad, const struct gsi_note *note);

/* ---- gsi_wait.c ---- */

void gsi_wait_open(struct gsi *gsi);
/* At once, or when the receiver has room. False: nobody has the name. One that finds no place counts as lost: its sender sends it again. */
bool gsi_send_note(struct gsi *gsi, const struct gsi_note *note, const struct sockaddr_un *name, socklen_t length);
/* A request that nobody listens for yet: it is tried for a moment, and then refused. False: there are too many. */
bool gsi_keep_request(struct gsi *gsi, const struct gsi_note *note);

#endif
