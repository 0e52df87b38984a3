/* SPDX-License-Identifier: Apache-2.0 */
/* Congestion that routers tell by marking packets (ECN). The receiver of marked data notifies its sender (CNP), which then sends less;
 * or, where it has asked for the data by READs itself, it asks for less. The device's lock is held in all. */
#ifndef UROCE_MARKING_H
#define UROCE_MARKING_H

#include "qp.h"

/* A packet of the peer was marked. */
void marking_seen(struct qp *qp, const struct packet *packet);
/* The peer tells that packets to it were. */
void marking_notified(struct qp *qp);
/* Sends the notification that is due. */
void marking_pump(struct qp *qp);

#endif
