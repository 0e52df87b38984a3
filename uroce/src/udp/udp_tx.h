/* SPDX-License-Identifier: Apache-2.0 */
/* The way out. */
#ifndef UROCE_UDP_TX_H
#define UROCE_UDP_TX_H

#include "udp_link.h"

extern const struct link_ops udp_ops;
int udp_tx_open(struct udp_link *link);
void udp_tx_close(struct udp_link *link);
/* Sends what fault injection has held back until now. */
void udp_tx_run_faults(struct udp_link *link);

#endif
