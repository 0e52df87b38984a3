/* SPDX-License-Identifier: Apache-2.0 */
/* Converts the name of a server, as a user typed it, to the form that a certificate bears. */
#ifndef SRDMA_SERVER_NAME_H
#define SRDMA_SERVER_NAME_H

#include <stddef.h>

struct srdma_server_name {
	char dns[254]; /* lower case, no dot at the end; "": the name is an address */
	unsigned char address[16];
	size_t address_length; /* 4, 16; 0: it is a name */
};

/* Accepts addresses in every form that getaddrinfo(3) accepts, with or without brackets. It drops an IPv6 zone, which names the route and
 * not the host, and turns an IPv4-mapped address into IPv4. Accepts names with or without a dot at the end. Errors: -EINVAL, with the
 * reason. */
int srdma_server_name_parse(const char *typed, struct srdma_server_name *out);

#endif
