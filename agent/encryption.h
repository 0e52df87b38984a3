/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the path from an own address to a peer's is encrypted by something that can be checked on this host: MACsec, WireGuard or
 * IPsec (the kernel's xfrm). docs/ENCRYPTION.md says what is checked and what that proves. */
#ifndef AGENT_ENCRYPTION_H
#define AGENT_ENCRYPTION_H

#include <stdint.h>

/* The kind of device whose packets take the path, because they take different ways through the kernel. */
enum encryption_device {
	ENCRYPTION_SOCKETS,  /* UDP sockets: uroce */
	ENCRYPTION_RXE,      /* rdma_rxe: through the GID's network device, whatever the routes say, and past the checks of ports */
	ENCRYPTION_HARDWARE, /* an adapter: past the kernel, so only what the adapter itself encrypts counts */
};

#define ENCRYPTION_WHAT 64
#define ENCRYPTION_WHY 512
/* `what` of a path that needs no encryption. */
#define ENCRYPTION_STAYS_HERE "the packets do not leave this host"

/* Looks at the path from the GID `own`, an address of this host, to the GID `peer` (IPv4-mapped or IPv6). `netdev` is the GID's network
 * device; NULL: the one that has the address, and a link-local address needs it. `what` says what encrypts the path, and is empty unless
 * the result is 0; `why` says why it does not count as encrypted.
 * The same question has the same answer for a second. Any thread may call this. It waits for nothing but the kernel's answers.
 * Errors: -EACCES the path is not encrypted, or nothing shows that it is; -EPERM the process may not look (it needs CAP_NET_ADMIN);
 * -EAGAIN the peer's hardware address is not known yet, or the kernel's lists changed while this read them, so ask again in a moment; -EINVAL no such addresses or network device. */
int encryption_check(const uint8_t own[16], const uint8_t peer[16], const char *netdev, enum encryption_device device, char what[ENCRYPTION_WHAT],
		     char why[ENCRYPTION_WHY]);
/* Forgets all answers, so that the next question is looked at anew. */
void encryption_forget(void);

#endif
