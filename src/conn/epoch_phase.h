/* SPDX-License-Identifier: Apache-2.0 */
/* The progress of one end in the change to a new epoch: the diagram of docs/ARCHITECTURE.md, "Renewal of a connection". Each end goes
 * through it by the frames that it sends, so this end follows the peer by the frames that come. */
#ifndef SRDMA_EPOCH_PHASE_H
#define SRDMA_EPOCH_PHASE_H

#include "frames.h"

/* In the order in which an end goes through them. */
enum srdma_epoch_phase {
	SRDMA_PHASE_GOING,     /* no change is under way */
	SRDMA_PHASE_ASKED,     /* the end has asked for one; work goes on until the other end begins */
	SRDMA_PHASE_BEGUN,     /* the end posts nothing new */
	SRDMA_PHASE_TOLD,      /* the old queue pair is no longer used, and the end has sent the new one's parameters */
	SRDMA_PHASE_CONNECTED, /* the new queue pair is in RTS */
};

struct srdma_epoch_arrow {
	enum srdma_epoch_phase from, to;
	enum srdma_frame_type frame; /* which the end sends with this step; 0: none, both ends are connected */
};

/* The whole diagram. */
const struct srdma_epoch_arrow *srdma_epoch_arrows(size_t *count);
const char *srdma_epoch_phase_name(enum srdma_epoch_phase phase);
/* Takes the step that belongs to this frame. False: the phase has no such step. */
bool srdma_epoch_advance(enum srdma_epoch_phase *phase, enum srdma_frame_type frame);

#endif
