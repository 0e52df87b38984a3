/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA writes and reads of a sealed connection. The region has no remote rights. The writing end seals chunks into a staging ring
 * of its own and announces them, several in one record. The other end pulls them with RDMA reads into memory that no peer can
 * reach, and opens each into the region. A read is requested by a record and answered in the same way. So the
 * holder of an rkey sees only ciphertext, and the device cannot change a chunk while it is being opened. docs/PROTOCOL.md, "Sealed
 * writes and reads". */
#ifndef SRDMA_SEALED_RDMA_H
#define SRDMA_SEALED_RDMA_H

#include "rate.h"
#include "region.h"
#include "ring.h"
#include "seal_lane.h"
#include "sealed_job.h"
#include "sealed_record.h"
#include "sealed_ring.h"
#include "queues.h"

/* A chunk of ours that the peer has not acknowledged. */
struct srdma_sealed_chunk {
	struct srdma_sealed_claim claim; /* WRITE: the bytes it carries; on no job: the chunk belongs to an answer */
	uint32_t staged;   /* bytes of the staging ring; 0: sent within the announcement */
	bool ends_record;  /* the last chunk of its announcement */
};

/* A chunk of the peer's, in the order of its announcement. Its destination is looked up only when the chunk has arrived: until then
 * the region or the program's memory may be taken back. */
struct srdma_sealed_pull {
	enum { PULL_WAITING, PULL_POSTED, PULL_ARRIVED, PULL_OPENING, PULL_DONE } state;
	struct srdma_sealed_claim claim; /* ANSWER: the bytes it fills */
	char *landing;     /* NULL: it came within the announcement */
	char *place;       /* OPENING: where the lane opens it to */
	uint32_t together; /* POSTED, the first chunk of an RDMA read: the number of chunks in it */
	uint32_t landed;   /* bytes of the landing ring */
	bool ends_record;
	struct srdma_sealed_header header;
};

/* The most reads of the peer that may be under way. */
#define SRDMA_SEALED_ANSWERS (SRDMA_SEALED_READS * SRDMA_SEALED_BATCH)

/* A read that the peer asked for. */
struct srdma_sealed_answer {
	uint64_t offset, length, announced;
	uint16_t region;
};

struct srdma_sealed_rdma {
	/* The connection's, set before srdma_sealed_rdma_start. */
	struct srdma_queues *queues;
	struct srdma_region *region; /* offered to the peer */
	/* Finds a region that this end offers under an id that is not 0; NULL: none. */
	const struct srdma_region *(*find_named)(const void *arg, uint16_t id);
	const void *named_arg;
	struct srdma_rate *rate;     /* limits the bytes taken from the peer */
	struct ibv_pd *pd;

	bool on;
	bool over; /* srdma_sealed_rdma_end */
	struct srdma_sealer *sealer;
	struct srdma_opener *opener;
	/* NULL: this thread seals and opens alone. Else the works in the lanes are the youngest chunks, and the pulls that are OPENING. */
	struct srdma_seal_lane *seal_lane, *open_lane;
	uint64_t opened;       /* chunks, or about to be */
	uint64_t active_until; /* on the clock: the next chunk is expected before */
	uint32_t unpolled;     /* bytes sealed or opened since the device was last looked at */

	struct srdma_sealed_jobs jobs;
	uint32_t reads_asked; /* this end's records with unanswered reads */

	struct srdma_region staging; /* made at the first use; the peer may read it */
	struct srdma_sealed_ring staging_ring;
	struct srdma_sealed_chunk chunks[SRDMA_SEALED_CHUNKS];
	struct srdma_ring chunk_ring;
	uint32_t records; /* which announced the chunks */
	uint8_t batch[SRDMA_SEALED_BATCH * SRDMA_SEALED_HEADER]; /* the announcement to come, of the youngest sealed chunks */
	uint32_t batch_count, batch_bytes;

	struct srdma_region landing; /* made at the first use; no peer may access it */
	struct srdma_sealed_ring landing_ring;
	struct srdma_sealed_pull pulls[SRDMA_SEALED_CHUNKS];
	struct srdma_ring pull_ring;
	uint32_t peer_records; /* which announced chunks and are not acknowledged */
	uint32_t acks_owed;    /* of these */
	uint64_t peer_wrote;   /* bytes of the peer's writes that are in the region, and all those before them */

	struct srdma_sealed_answer answers[SRDMA_SEALED_ANSWERS];
	struct srdma_ring answer_ring;
};

/* Takes over the sealer and the opener. */
int srdma_sealed_rdma_start(struct srdma_sealed_rdma *rdma, struct srdma_sealer *sealer, struct srdma_opener *opener);
/* Lets the pool's threads seal and open chunks, too; `wake` as in seal_lane.h. The pool must outlive the connection. */
int srdma_sealed_rdma_share(struct srdma_sealed_rdma *rdma, struct srdma_seal_pool *pool, void (*wake)(void *arg), void *arg);
void srdma_sealed_rdma_release(struct srdma_sealed_rdma *rdma);
/* For the end of the connection, or a peer that has broken a rule: drops every write and read, with everything that refers to them,
 * and executes no record that still comes. After this returns, nothing accesses the program's memory any more. */
void srdma_sealed_rdma_end(struct srdma_sealed_rdma *rdma);
/* Does the work that is possible now, up to one turn. */
int srdma_sealed_rdma_step(struct srdma_sealed_rdma *rdma);
/* After a post: hands chunks over and sends what is ready. With lanes, it leaves the sealing to the other threads and to the next step. */
int srdma_sealed_rdma_push(struct srdma_sealed_rdma *rdma);
/* Whether another step could do more now. */
bool srdma_sealed_rdma_has_work(const struct srdma_sealed_rdma *rdma);
/* Whether a chunk has just come or gone, so that the next one is likely to follow soon. */
bool srdma_sealed_rdma_is_active(const struct srdma_sealed_rdma *rdma);
/* The thread is about to sleep: another one that has sealed or opened a chunk will wake it. Look for work again afterwards. */
void srdma_sealed_rdma_arm(struct srdma_sealed_rdma *rdma);
/* After this returns, no other thread uses the region, until the next step. */
void srdma_sealed_rdma_settle(struct srdma_sealed_rdma *rdma);
/* Queues a write or read, which has been checked; queues.rdma_queued < rdma_depth. Its memory is used until its completion, or
 * srdma_sealed_rdma_end. */
int srdma_sealed_rdma_post(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_job *job);
/* Whether no write or read of this end's is under way. */
bool srdma_sealed_rdma_is_idle(const struct srdma_sealed_rdma *rdma);
/* Whether no write is under way: a message may follow. */
bool srdma_sealed_rdma_has_written(const struct srdma_sealed_rdma *rdma);

#endif
