/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of bytes over a connection. Each end counts all bytes of a direction from 0; byte n lies at n modulo the size in the ring of
 * its reader, which is the reader's region, and in the buffer of its writer. docs/PROTOCOL.md, "Streams". */
#ifndef SRDMA_STREAM_H
#define SRDMA_STREAM_H

#include "conn.h"
#include "securdma_stream.h"
#include "stream_frame.h"

/* What this end writes: peer_read <= acknowledged by the ring; completed <= posted <= written. */
struct srdma_stream_out {
	struct srdma_buffer *buffer;
	char *data;
	size_t size;
	size_t peer_ring;   /* 0: the peer's OPEN has not come */
	uint64_t written;   /* by the program */
	uint64_t posted;    /* of these, handed to the device or sent in messages */
	uint64_t completed; /* of these, up to which nothing uses the buffer any more */
	uint64_t announced; /* of those posted, the peer was told; while sealed it counts by itself */
	uint64_t peer_read; /* of those posted, as the peer has reported */
	uint32_t in_flight; /* writes that are posted */
	size_t reserved;    /* of srdma_stream_reserve; 0: nothing is lent */
	bool opened, shut, fin_sent; /* OPEN was sent; shutdown was called; FIN was sent */
	int error;          /* -ENXIO: the peer took its region back */
	char error_text[160];
};

/* What the peer writes. */
struct srdma_stream_in {
	char *ring;
	size_t size;
	uint64_t arrived;
	uint64_t read;     /* by the program */
	uint64_t reported; /* of these, to the peer */
	uint64_t before;   /* sealed: what the peer had written to the region before there was a stream */
	bool ended;        /* its FIN came: */
	uint64_t total;
	size_t found;      /* of srdma_stream_peek; as far as consume may go */
};

/* The answer -EAGAIN was given: what the program waits for. */
struct srdma_stream_wants {
	bool read, write, flush;
	bool turn; /* a server's program wants another turn, or must learn of something new */
};

struct srdma_stream {
	struct srdma_conn *conn; /* NULL: it is freed */
	struct srdma_stream_out out;
	struct srdma_stream_in in;
	struct srdma_stream_wants wants;
	uint8_t *scratch;  /* one message */
	size_t inline_max; /* bytes of a DATA; 0: none while sealed */
	bool (*ready)(const struct srdma_stream *stream); /* what a call waits for */
	bool takes_wake; /* the call ends when srdma_conn_wake is called */
	bool aborted, peer_aborted; /* by this end; by the peer */
	bool abort_sent;
	char reason[SRDMA_STREAM_REASON_MAX + 1];
};

/* stream.c */
/* 0 while both directions work; or the error of the stream or of its connection. */
int srdma_stream_check(const struct srdma_stream *stream);
/* Whether nothing more can come or go: an abort, or the end of the connection. */
bool srdma_stream_is_over(const struct srdma_stream *stream);

/* stream_take.c */
/* Takes what has come: messages, completions, and, while sealed, bytes. A breach of the protocol ends the connection. */
void srdma_stream_take(struct srdma_stream *stream);

/* stream_pump.c */
/* Does everything that needs no waiting: takes what has come, and sends what is due. */
void srdma_stream_pump(struct srdma_stream *stream);
/* Whether the pump has something to do. */
bool srdma_stream_has_work(const struct srdma_stream *stream);
/* Pumps until `ready`, for the patience of the call. `ready` is true when srdma_stream_is_over. */
int srdma_stream_await(struct srdma_stream *stream, bool (*ready)(const struct srdma_stream *stream), const char *what,
		       struct srdma_patience *patience);
/* Whether a chunk may be posted now. */
bool srdma_stream_may_post(const struct srdma_stream *stream);
/* Posts `length` bytes at `offset` of the buffer as the next ones of the stream, as far as there is room now. Returns how many. */
size_t srdma_stream_post(struct srdma_stream *stream, struct srdma_buffer *buffer, size_t offset, size_t length);

/* stream_read.c, stream_write.c */
bool srdma_stream_can_read(const struct srdma_stream *stream);
bool srdma_stream_can_write(const struct srdma_stream *stream);
bool srdma_stream_is_flushed(const struct srdma_stream *stream);

/* For a server: whether its program's on_stream is to be called, after a pump. */
bool srdma_stream_has_event(const struct srdma_stream *stream);
/* It is about to be called. */
void srdma_stream_begin_turn(struct srdma_stream *stream);
/* It is to be called again, whatever happens. */
void srdma_stream_ask_for_turn(struct srdma_stream *stream);

#endif
