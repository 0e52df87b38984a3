/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA writes and reads of a sealed connection. The region has no remote rights: the writing end seals chunks into a staging ring of
 * its own and announces them, several in one record; the other end pulls them with RDMA reads into memory that no peer can
 * reach, and opens each into the region. A read is asked for, and answered the same way round. So an rkey shows its holder
 * ciphertext, and nothing that the device can still change is ever being opened. docs/PROTOCOL.md, "Sealed writes and reads". */
#ifndef SRDMA_SEALED_RDMA_H
#define SRDMA_SEALED_RDMA_H

#include "rate.h"
#include "region.h"
#include "sealed_job.h"
#include "sealed_record.h"
#include "sealed_ring.h"
#include "stream.h"

/* A chunk of ours that the peer has not acknowledged. */
struct srdma_sealed_chunk {
	struct srdma_sealed_claim claim; /* WRITE: what it fetched; of no job: it is of an answer */
	uint32_t staged;   /* bytes of the staging ring; 0: it went within the announcement */
	bool ends_record;  /* the last one that its announcement told of */
};

/* A chunk of the peer's, in the order of its announcement. Where it belongs is asked when it is there, and not before: only then may
 * that be written to, and it may have been taken back meanwhile. */
struct srdma_sealed_pull {
	enum { PULL_WAITING, PULL_POSTED, PULL_ARRIVED, PULL_DONE } state;
	struct srdma_sealed_claim claim; /* ANSWER: what it fills */
	char *landing;     /* NULL: it came within the announcement */
	uint32_t together; /* POSTED, the first that one read fetches: of how many */
	uint32_t landed;   /* bytes of the landing ring */
	bool ends_record;
	struct srdma_sealed_header header;
};

/* What the peer wants to read. */
struct srdma_sealed_answer {
	uint64_t offset, length, announced;
};

struct srdma_sealed_rdma {
	/* The connection's, set before srdma_sealed_rdma_start. */
	struct srdma_stream *stream;
	struct srdma_region *region; /* offered to the peer */
	struct srdma_rate *rate;     /* of what is taken from the peer */
	struct ibv_pd *pd;

	bool on;
	bool over; /* srdma_sealed_rdma_end */
	struct srdma_sealer *sealer;
	struct srdma_opener *opener;
	uint64_t opened;       /* chunks */
	uint64_t active_until; /* on the clock: more is expected before */
	uint32_t unpolled;     /* bytes sealed or opened since the device was last looked at */

	struct srdma_sealed_jobs jobs;
	uint32_t reads_asked; /* records whose reads are not all answered */

	struct srdma_region staging; /* made when first used; the peer may read it */
	struct srdma_sealed_ring staging_ring;
	struct srdma_sealed_chunk chunks[SRDMA_SEALED_CHUNKS];
	uint32_t chunk_head, chunk_count;
	uint32_t records; /* that announced them */
	uint8_t batch[SRDMA_SEALED_BATCH * SRDMA_SEALED_HEADER]; /* the announcement to come, of the youngest chunks */
	uint32_t batch_count, batch_bytes;

	struct srdma_region landing; /* made when first used; nobody may reach it */
	struct srdma_sealed_ring landing_ring;
	struct srdma_sealed_pull pulls[SRDMA_SEALED_CHUNKS];
	uint32_t pull_head, pull_count;
	uint32_t peer_records; /* that announced chunks and are not acknowledged */
	uint32_t acks_owed;    /* of these */

	struct srdma_sealed_answer answers[SRDMA_SEALED_READS * SRDMA_SEALED_BATCH];
	uint32_t answer_head, answer_count;
};

/* Takes the sealer and the opener. */
int srdma_sealed_rdma_start(struct srdma_sealed_rdma *rdma, struct srdma_sealer *sealer, struct srdma_opener *opener);
void srdma_sealed_rdma_release(struct srdma_sealed_rdma *rdma);
/* The connection is over, or the peer has broken a rule: every write and read is dropped, with all that refers to them, and nothing that
 * still comes is executed. From its return on the programs' memory is touched no more. */
void srdma_sealed_rdma_end(struct srdma_sealed_rdma *rdma);
/* What can be done now, or a good part of it. */
int srdma_sealed_rdma_step(struct srdma_sealed_rdma *rdma);
/* There is more that can be done now. */
bool srdma_sealed_rdma_has_work(const struct srdma_sealed_rdma *rdma);
/* A chunk has just come or gone: the next one will soon. */
bool srdma_sealed_rdma_is_active(const struct srdma_sealed_rdma *rdma);
/* Queues a write or read, which has been checked; stream.rdma_queued < rdma_depth. Its memory is used until its completion, or
 * srdma_sealed_rdma_end. */
int srdma_sealed_rdma_post(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_job *job);
/* No write or read of this end's is under way. */
bool srdma_sealed_rdma_is_idle(const struct srdma_sealed_rdma *rdma);
/* No write is: a message may follow. */
bool srdma_sealed_rdma_has_written(const struct srdma_sealed_rdma *rdma);

#endif
