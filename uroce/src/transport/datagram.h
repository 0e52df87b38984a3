/* SPDX-License-Identifier: Apache-2.0 */
/* Unreliable datagrams. The device's lock is held in all. */
#ifndef UROCE_DATAGRAM_H
#define UROCE_DATAGRAM_H

#include "qp.h"

/* Sends up to `budget` packets. True when more is ready to go. */
bool datagram_pump(struct qp *qp, unsigned budget);
/* The short way (express.h): as far as the ways are known and have room. False: there are more. No cancellation point. */
bool datagram_express(struct qp *qp);
void datagram_receive(struct qp *qp, const struct packet *packet, const struct packet_path *path);

#endif
