/* SPDX-License-Identifier: Apache-2.0 */
/* What a responder does for FLUSH and ATOMIC WRITE, IBTA vol 1 annex A19. The device's lock is held in both; both return 0, or the
 * syndrome of the NAK that refuses the request. */
#ifndef UROCE_PLACEMENT_H
#define UROCE_PLACEMENT_H

#include "qp.h"

uint8_t placement_flush(const struct qp *qp, const struct packet *packet);
uint8_t placement_atomic_write(const struct qp *qp, const struct packet *packet);

#endif
