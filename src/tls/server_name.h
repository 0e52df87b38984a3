/* SPDX-License-Identifier: Apache-2.0 */
/* The name of a server as somebody typed it, in the form that a certificate bears. */
#ifndef SRDMA_SERVER_NAME_H
#define SRDMA_SERVER_NAME_H

#include <stddef.h>

struct srdma_server_name {
	char dns[254]; /* lower case, no dot at the end; "": it is an address */
	unsigned char address[16];
	size_t address_length; /* 4, 16; 0: it is a name */
};

/* Addresses in every form that getaddrinfo(3) takes for one, in brackets or not, an IPv6 one with a zone, which says how to get there
 * and not where, so that it is left out; an IPv4-mapped one is IPv4. Names with a dot at the end or without. Errors: -EINVAL, with
 * the reason. */
int srdma_server_name_parse(const char *typed, struct srdma_server_name *out);

#endif
