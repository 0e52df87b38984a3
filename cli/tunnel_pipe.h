/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a tunnel at one of its ends, between a TCP socket and a stream, in both directions. It never waits, and has no memory of
 * its own: it receives into the stream's buffer, and sends from its ring. */
#ifndef CLI_TUNNEL_PIPE_H
#define CLI_TUNNEL_PIPE_H

#include "securdma_stream.h"

/* Room for why a tunnel ended. */
#define TUNNEL_REASON 128
/* The word in a client's private data, behind which the target's name comes; the default name. */
#define TUNNEL_WORD    "securdma-tunnel/1"
#define TUNNEL_DEFAULT "default"

struct tunnel_pipe {
	int fd; /* the socket, non-blocking; -1: closed */
	struct srdma_stream *stream;
	bool socket_ended, stream_ended; /* nothing more comes from there, and the other one was told */
	bool busy;                       /* the last turn did its share, and there may be more */
	short events;                    /* what the socket must be watched for: POLLIN, POLLOUT */
	short stream_events;             /* likewise, the stream */
	uint64_t to_stream, to_socket;   /* bytes */
};

/* Moves up to a share of bytes. 0; or a negative error, with a reason for the peer: call tunnel_pipe_break then. */
int tunnel_pipe_turn(struct tunnel_pipe *pipe, char reason[TUNNEL_REASON]);
/* Whether both directions ended in order. */
bool tunnel_pipe_is_done(const struct tunnel_pipe *pipe);
/* For a new socket: from here on its other end sees an error, and no end of its data, also when this process is killed. */
void tunnel_pipe_prepare(int fd);
/* Closes the socket, with `broken` in this way, else in order. */
void tunnel_pipe_close(struct tunnel_pipe *pipe, bool broken);

#endif
