/* SPDX-License-Identifier: Apache-2.0 */
#include "epoch_phase.h"

#include "array.h"

static const struct srdma_epoch_arrow arrows[] = {
	{SRDMA_PHASE_GOING, SRDMA_PHASE_ASKED, SRDMA_FRAME_EPOCH_REQUEST},
	{SRDMA_PHASE_GOING, SRDMA_PHASE_BEGUN, SRDMA_FRAME_EPOCH_BEGIN},
	{SRDMA_PHASE_ASKED, SRDMA_PHASE_BEGUN, SRDMA_FRAME_EPOCH_BEGIN},
	{SRDMA_PHASE_BEGUN, SRDMA_PHASE_TOLD, SRDMA_FRAME_EPOCH_PARAMETERS},
	{SRDMA_PHASE_TOLD, SRDMA_PHASE_CONNECTED, SRDMA_FRAME_EPOCH_READY},
	{SRDMA_PHASE_CONNECTED, SRDMA_PHASE_GOING, 0},
};

const struct srdma_epoch_arrow *srdma_epoch_arrows(size_t *count)
{
	*count = SRDMA_COUNT(arrows);
	return arrows;
}

const char *srdma_epoch_phase_name(enum srdma_epoch_phase phase)
{
	static const char *const names[] = {
		[SRDMA_PHASE_GOING] = "going", [SRDMA_PHASE_ASKED] = "asked",         [SRDMA_PHASE_BEGUN] = "begun",
		[SRDMA_PHASE_TOLD] = "told",   [SRDMA_PHASE_CONNECTED] = "connected",
	};

	return (size_t)phase < SRDMA_COUNT(names) ? names[phase] : "unknown";
}

bool srdma_epoch_advance(enum srdma_epoch_phase *phase, enum srdma_frame_type frame)
{
	for (size_t i = 0; i < SRDMA_COUNT(arrows); i++)
		if (arrows[i].from == *phase && arrows[i].frame == frame) {
			*phase = arrows[i].to;
			return true;
		}
	return false;
}
