/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a link share: link.c has the calls of the program, link_policy.c the way from one connection to the next. */
#ifndef SRDMA_LINK_STATE_H
#define SRDMA_LINK_STATE_H

#include "conn.h"
#include "kept.h"
#include "securdma_link.h"

enum srdma_link_phase {
	SRDMA_LINK_UP,      /* `conn` is to be used, until a call on it fails */
	SRDMA_LINK_LEAVING, /* the server has disconnected `conn`, and finishes that */
	SRDMA_LINK_PAUSING, /* until `pause_until` */
	SRDMA_LINK_NEXT,    /* the next endpoint is to be tried */
	SRDMA_LINK_TRYING,  /* it is being tried: `connect` */
	SRDMA_LINK_DOWN,    /* nothing is under way */
};

struct srdma_link {
	struct srdma_link_options options; /* endpoints: the link's own copy */
	struct srdma_conn_settings conn_settings; /* gid_networks: the link's own copy */
	struct srdma_endpoint *endpoints;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	int wake_fd; /* wake.h; each connection has a duplicate of it */
	atomic_bool wake_requested; /* by srdma_link_wake */
	struct srdma_watch watch; /* wake_fd, that of `conn` or `connect`, and the time of a pause */

	enum srdma_link_phase phase;
	struct srdma_conn *conn; /* NULL: none */
	size_t endpoint;         /* of this connection, or of the last one */
	uint64_t base;           /* number of the last message of earlier connections */
	uint64_t connected_at;
	unsigned connections;
	unsigned failures; /* in a row: failed rounds, and connections that carried nothing */
	bool left;         /* disconnected by this end */

	/* On the way to a connection. */
	struct srdma_connect *connect; /* NULL: none */
	uint64_t until;       /* the end of the policy's time; 0: it begins when the pause is over */
	uint64_t pause_until;
	size_t tried;         /* endpoints in this round */
	int error;            /* of this round: the last one that is worth a retry, else the last one */
	char error_text[512];
	bool worth_retrying;

	struct srdma_kept kept; /* messages that came over connections that have ended */
	uint64_t in_doubt;
	uint64_t lost_at; /* 0: not down */
	bool untold;      /* SRDMA_ERECONNECTED is due, after the kept messages */
	struct srdma_link_loss loss;
};

/* link_policy.c */
/* Begins to connect: at once for the first time, and after a pause when a connection was lost. */
void srdma_link_begin(struct srdma_link *link);
/* Goes as far as it can without waiting. 0: the first connection is up, or there was nothing to do; SRDMA_ERECONNECTED: another one is
 * up; -EAGAIN; -EINTR: another thread has woken the link; or the error with which the policy gave up. */
int srdma_link_advance(struct srdma_link *link);
/* The connection is over, for the reason in the thread's last error, `error`. Another one is on its way then. -ENOMEM. */
int srdma_link_lose(struct srdma_link *link, int error);
/* Gives up what is under way, but for the connection. */
void srdma_link_abandon(struct srdma_link *link);
/* Fails with SRDMA_ERECONNECTED. */
int srdma_link_tell_reconnection(const struct srdma_link *link);

#endif
