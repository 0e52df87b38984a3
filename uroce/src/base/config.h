/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration in the environment. */
#ifndef UROCE_CONFIG_H
#define UROCE_CONFIG_H

struct config {
	const char *addresses; /* UROCE_ADDR; NULL: loopback */
	const char *capture;   /* UROCE_CAPTURE; NULL: none */
	const char *fault;     /* UROCE_FAULT; NULL: none */
	const char *go_back;   /* UROCE_GO_BACK; not NULL: packets ahead of a gap are not kept */
	const char *wire;      /* UROCE_WIRE; not NULL: all packets are sent by UDP */
};

/* Reads the environment at the first call of the process; later calls return the same. Empty variables count as not
 * set. NULL when memory is missing, logged. Thread-safe. UROCE_LOG is log.c's, which may be asked before. */
const struct config *config_get(void);

#endif
