/* SPDX-License-Identifier: Apache-2.0 */
/* Frames over anything that carries bytes both ways: a stream over RDMA, a server's pipes, a test's sockets. Each frame has a checksum
 * that also covers its place in the order, unless what carries it has its own. All memory is allocated at the start. */
#ifndef FILES_CHANNEL_H
#define FILES_CHANNEL_H

#include "frame.h"
#include "mac.h"

#include <stdbool.h>
#include <sys/types.h>

/* read and write never wait. They return how many bytes, at least one; -EAGAIN; another error; read 0: the peer has said its last.
 * wait returns 0 when one of the two may go on, or a negative error such as -ETIMEDOUT. */
struct files_transport {
	ssize_t (*read)(void *arg, void *data, size_t size);
	ssize_t (*write)(void *arg, const void *data, size_t size);
	int (*wait)(void *arg, bool to_read, bool to_write, int timeout_ms);
	void *arg;
	bool is_sealed; /* nobody can change, add or omit bytes on the way, so frames have no checksums */
};

struct files_channel;

/* `timeout_ms`: without a byte either way. Errors: -ENOMEM, -EIO. */
int files_channel_new(const struct files_transport *transport, const uint8_t key[FILES_KEY_SIZE], bool is_client, int timeout_ms,
		      struct files_channel **out);
void files_channel_free(struct files_channel **channel);

/* The next frame, whose bytes are valid until the next call; those of FILES_ALIVE are taken, and not returned.
 * `wait` false: -EAGAIN when none has come. *frame's type is 0 when the peer has said its last, in order.
 * Errors: -EPROTO, -EBADMSG: a checksum is wrong, -ETIMEDOUT, those of the transport. */
int files_channel_next(struct files_channel *channel, bool wait, struct files_frame *frame);
/* The same; waits `ms` at most, then -EAGAIN. */
int files_channel_next_within(struct files_channel *channel, int ms, struct files_frame *frame);

/* Puts a frame with those that wait to go, and sends them when there are enough. Meanwhile frames that come are kept. */
int files_channel_put(struct files_channel *channel, const struct files_frame *frame);
/* Room for FILES_DATA_MAX bytes, in which the content of the next FILES_DATA is to stand. */
int files_channel_room(struct files_channel *channel, uint8_t **data);
/* Sends all that waits to go. */
int files_channel_flush(struct files_channel *channel);
/* Tells the peer that this end is at work, if it has not heard of it for a while. For work that takes long. */
int files_channel_live(struct files_channel *channel);
/* The checksums of the contents: FILES_MAC_PART. */
struct files_mac *files_channel_mac(struct files_channel *channel);

#endif
