/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the path from one of this host's addresses to a peer's is encrypted: what `securdma doctor --encryption` looks at. */
#include "doctor.h"
#include "encryption.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct address {
	struct sockaddr_storage socket;
	socklen_t length;
	uint8_t gid[16];
	char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
};

static const char *const kinds[] = {
	[ENCRYPTION_SOCKETS] = "UDP sockets",
	[ENCRYPTION_RXE] = "rdma_rxe",
	[ENCRYPTION_HARDWARE] = "an adapter",
};

/* The kernel's rdma_rxe alone names its network device there. What is neither that nor uroce counts as an adapter, of which the least is
 * believed. */
static enum encryption_device kind_of(const char *device)
{
	char path[128];

	if (strncmp(device, "uroce", strlen("uroce")) == 0)
		return ENCRYPTION_SOCKETS;
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/parent", device);
	return access(path, F_OK) == 0 ? ENCRYPTION_RXE : ENCRYPTION_HARDWARE;
}

static void take_gid(struct address *address)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->socket;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->socket;

	memset(address->gid, 0, sizeof address->gid);
	if (address->socket.ss_family == AF_INET) {
		address->gid[10] = address->gid[11] = 0xff;
		memcpy(address->gid + 12, &v4->sin_addr, 4);
	} else {
		memcpy(address->gid, &v6->sin6_addr, 16);
	}
	if (getnameinfo((struct sockaddr *)&address->socket, address->length, address->text, sizeof address->text, NULL, 0, NI_NUMERICHOST) != 0)
		snprintf(address->text, sizeof address->text, "?");
}

static bool read_address(const char *text, struct address *address)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_DGRAM}, *found;

	if (getaddrinfo(text, "4791", &hints, &found) != 0)
		return false;
	memcpy(&address->socket, found->ai_addr, found->ai_addrlen);
	address->length = found->ai_addrlen;
	freeaddrinfo(found);
	take_gid(address);
	return true;
}

/* The address that the kernel would send from. */
static bool find_own(const struct address *peer, struct address *own)
{
	int fd = socket(peer->socket.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool found;

	own->length = sizeof own->socket;
	found = fd >= 0 && connect(fd, (const struct sockaddr *)&peer->socket, peer->length) == 0 &&
		getsockname(fd, (struct sockaddr *)&own->socket, &own->length) == 0;
	if (fd >= 0)
		close(fd);
	if (found)
		take_gid(own);
	return found;
}

/* Only a link-local address names its network device. */
static const char *netdev_of(const struct address *address, char name[IF_NAMESIZE])
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->socket;

	return address->socket.ss_family == AF_INET6 && v6->sin6_scope_id != 0 ? if_indextoname(v6->sin6_scope_id, name) : NULL;
}

static void report(struct doctor *doctor, const struct address *own, const struct address *peer, const char *device)
{
	char what[ENCRYPTION_WHAT], why[ENCRYPTION_WHY], name[IF_NAMESIZE], path[256];
	enum encryption_device kind = kind_of(device);
	int ret = encryption_check(own->gid, peer->gid, netdev_of(own, name), kind, what, why);

	snprintf(path, sizeof path, "%s to %s by %s (%s)", own->text, peer->text, device, kinds[kind]);
	if (ret == 0)
		doctor_find(doctor, FINDING_OK, "encryption", NULL, "%s: %s", path, what);
	else if (ret == -EAGAIN)
		doctor_find(doctor, FINDING_FAIL, "encryption", "ping the peer, and try again", "%s: %s", path, why);
	else
		doctor_find(doctor, FINDING_FAIL, "encryption",
			    ret == -EPERM    ? "run this as root"
			    : ret == -EINVAL ? "give addresses of the two hosts, of one family   (ip address shows those of this host)"
					     : "see docs/ENCRYPTION.md for ways to encrypt the path",
			    "%s: %s", path, why);
}

int doctor_check_encryption(struct doctor *doctor, const char *peer_text, const char *own_text)
{
	struct address own, peer;
	const char *device = doctor->settings->device.name;

	if (!read_address(peer_text, &peer))
		return cli_usage("doctor", "--encryption takes an IP address, not '%s'", peer_text);
	if (own_text && !read_address(own_text, &own))
		return cli_usage("doctor", "--from takes an IP address, not '%s'", own_text);
	if (!own_text && !find_own(&peer, &own)) {
		doctor->usable_device = true;
		doctor_find(doctor, FINDING_FAIL, "encryption", "ip route get ADDRESS   (shows the route)", "no address of this host to send to %s from: %s",
			    peer.text, strerror(errno));
		return CLI_EXIT_OK;
	}
	if (!device && srdma_device_open(&doctor->settings->device, &doctor->device) < 0) {
		doctor_find(doctor, FINDING_FAIL, "device", "securdma doctor   (shows what is missing), or name one with --device", "%s", srdma_error_text());
		return CLI_EXIT_OK;
	}
	doctor->usable_device = true;
	if (!device)
		device = srdma_device_name(doctor->device);
	report(doctor, &own, &peer, device);
	return CLI_EXIT_OK;
}
