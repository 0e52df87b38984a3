/* SPDX-License-Identifier: Apache-2.0 */
/* The way in; udp.h has udp_receive. */
#ifndef UROCE_UDP_RX_H
#define UROCE_UDP_RX_H

#include "udp_link.h"

int udp_rx_open(struct udp_link *link);
void udp_rx_close(struct udp_link *link);

#endif
