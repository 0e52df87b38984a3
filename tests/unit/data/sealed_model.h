/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed writes and reads as docs/PROTOCOL.md has them, in the plainest form: which records an end must take, which must end its
 * connection, and which bytes must then be where. It shares only the arithmetic of the ring with the library. */
#ifndef TEST_BULK_MODEL_H
#define TEST_BULK_MODEL_H

#include "end_rig.h"

enum { MODEL_REGION = 300000, MODEL_PEER_REGION = 700000, MODEL_ASKED = 32 };

/* A program's memory: no byte before it or behind it may be touched, and none of it once it was handed back. */
struct guarded {
	char *data;
	size_t length, mapped;
	char *map;
};

struct model_job {
	bool write, asked;
	uint64_t cookie, length, offset;
	uint64_t claimed, placed;           /* bytes */
	unsigned claimed_chunks, placed_chunks;
	uint8_t *expected; /* READ: as the peer answered */
	struct srdma_buffer *buffer;
	struct guarded memory;
};

/* The contents of a chunk that a record announces. */
struct model_content {
	uint8_t *bytes;
	bool wrong; /* they will not authenticate */
};

struct model_record {
	uint8_t bytes[RIG_MESSAGE_SIZE];
	uint32_t length;
	struct model_content contents[SRDMA_SEALED_BATCH];
};

struct model_chunk {
	uint64_t cookie; /* of the read that it answers; 0: it is for the region */
	uint64_t offset; /* in the region */
	uint32_t length, taken;
	uint64_t address;
	uint32_t rkey;
	bool fetched;
	struct model_content content;
};

struct model_sent {
	unsigned chunks;
	uint64_t cookies[SRDMA_SEALED_BATCH]; /* 0: of an answer */
	uint32_t lengths[SRDMA_SEALED_BATCH];
};

struct model {
	struct end_rig rig;
	uint8_t *region, *peer_region; /* the bytes that must be in them */
	bool withdrawn;
	uint64_t version;              /* of the region */
	struct model_job jobs[RIG_RDMA_DEPTH]; /* under way, the oldest first */
	unsigned job_count;
	struct model_job over[RIG_RDMA_DEPTH]; /* and not collected */
	unsigned over_count;
	struct model_chunk chunks[SRDMA_SEALED_CHUNKS]; /* announced by the peer and not in place */
	unsigned chunk_count;
	struct srdma_sealed_ring ring;
	unsigned announcements; /* of the peer's that are not acknowledged */
	struct {
		uint64_t offset, length, answered, version;
	} asked[MODEL_ASKED]; /* by the peer */
	unsigned asked_count;
	struct model_sent sent[SRDMA_SEALED_RECORDS]; /* announced by the end and not acknowledged */
	unsigned sent_count;
	const char *where; /* the sequence and step, for the message of a failure */
};

void model_new(struct model *model);
void model_delete(struct model *model);
/* Says where, and ends the program. */
_Noreturn void model_fail(struct model *model, const char *what);
/* The program posts a write or read. */
void model_post(struct model *model, bool write, uint64_t length, uint64_t offset, uint64_t cookie);
/* A record of the peer's, which has just been delivered: 0, or the error that must follow. Takes the contents over. */
int model_take(struct model *model, const struct model_record *record);
/* Puts the fetched chunks in place: 0, or the error that must follow. */
int model_place(struct model *model);
/* The read that the peer is to answer now; NULL: none. */
struct model_job *model_owed(struct model *model);
/* Checks that all bytes are in place and no others have changed; collects complete jobs and hands their memory back. */
void model_check(struct model *model);
/* The connection is over: all memory is handed back. */
void model_end(struct model *model);

#endif
