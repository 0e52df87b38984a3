/* SPDX-License-Identifier: Apache-2.0 */
/* UROCE_ADDR: a list of addresses and interfaces, to the GID table. */
#include "udp_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "log.h"

/* The list being made. */
struct list {
	struct udp_address *address;
	unsigned count;
	const struct ifaddrs *interfaces;
};

void udp_address_text(const struct udp_address *address, char out[UDP_ADDRESS_TEXT])
{
	char name[IF_NAMESIZE];
	const union ibv_gid *gid = &address->gid;

	if (gid_is_v4(gid))
		inet_ntop(AF_INET, gid->raw + 12, out, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, gid->raw, out, INET6_ADDRSTRLEN);
	bool one_link = IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)gid->raw);
	if (one_link && if_indextoname(address->ifindex, name)) {
		size_t length = strlen(out);
		snprintf(out + length, UDP_ADDRESS_TEXT - length, "%%%.*s", 15, name);
	}
}

static bool gid_of(const struct sockaddr *any, union ibv_gid *out)
{
	if (!any || (any->sa_family != AF_INET && any->sa_family != AF_INET6))
		return false;
	if (any->sa_family == AF_INET)
		gid_map_v4(out, ((const struct sockaddr_in *)any)->sin_addr.s_addr);
	else
		memcpy(out->raw, &((const struct sockaddr_in6 *)any)->sin6_addr, sizeof out->raw);
	return true;
}

bool udp_ask_interface(const char *name, unsigned question, struct ifreq *answer)
{
	*answer = (struct ifreq){ .ifr_flags = 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	strncpy(answer->ifr_name, name, sizeof answer->ifr_name - 1);
	bool answered = ioctl(fd, question, answer) == 0;
	close(fd);
	return answered;
}

static unsigned interface_mtu(const char *name)
{
	struct ifreq answer;
	return udp_ask_interface(name, SIOCGIFMTU, &answer) ? (unsigned)answer.ifr_mtu : 0;
}

static int list_add(struct list *list, const union ibv_gid *gid, const char *interface, bool of_interface)
{
	unsigned ifindex = if_nametoindex(interface);

	for (unsigned i = 0; i < list->count; i++)
		if (memcmp(&list->address[i].gid, gid, sizeof *gid) == 0 && list->address[i].ifindex == ifindex)
			return 0;
	if (list->count == UDP_MAX_GIDS) {
		log_write(LOG_ERROR, "UROCE_ADDR: at most %d addresses are allowed", UDP_MAX_GIDS);
		return -EINVAL;
	}
	list->address[list->count++] = (struct udp_address){
		.gid = *gid,
		.ifindex = ifindex,
		.mtu = interface_mtu(interface),
		.of_interface = of_interface,
	};
	return 0;
}

/* ---- one word of the list ---- */

enum { NOT_ADDRESS = 1 };

/* An address of one of the interfaces. NOT_ADDRESS: it does not look like an address. */
static int list_add_address(struct list *list, const char *word)
{
	union ibv_gid gid, found;
	char plain[INET6_ADDRSTRLEN];
	struct in_addr v4;
	size_t length = strcspn(word, "%");
	const char *scope = word[length] == '%' ? word + length + 1 : NULL;

	if (length >= sizeof plain)
		return NOT_ADDRESS;
	memcpy(plain, word, length);
	plain[length] = '\0';
	if (!scope && inet_pton(AF_INET, plain, &v4) == 1)
		gid_map_v4(&gid, v4.s_addr);
	else if (inet_pton(AF_INET6, plain, gid.raw) != 1)
		return NOT_ADDRESS;
	if (IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)gid.raw) && !scope) {
		log_write(LOG_ERROR, "UROCE_ADDR: %s is a link-local address: add its interface (%s%%eth0)", word, word);
		return -EINVAL;
	}
	for (const struct ifaddrs *i = list->interfaces; i; i = i->ifa_next) {
		if (!gid_of(i->ifa_addr, &found) || memcmp(&found, &gid, sizeof gid) != 0)
			continue;
		if (!scope || strcmp(scope, i->ifa_name) == 0)
			return list_add(list, &gid, i->ifa_name, false);
	}
	/* All of 127.0.0.0/8 is local, though the interface shows one address only. */
	if (gid_is_loopback(&gid))
		return list_add(list, &gid, "lo", false);
	log_write(LOG_ERROR, "UROCE_ADDR: no interface of this machine has the address %s (see: ip address)", word);
	return -EADDRNOTAVAIL;
}

/* IPv4 first, then addresses that are good everywhere, then those of the link. */
static int rank(const union ibv_gid *gid)
{
	return gid_is_v4(gid) ? 0 : IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)gid->raw) ? 2 : 1;
}

static int list_add_interface(struct list *list, const char *name)
{
	union ibv_gid gid;
	unsigned before = list->count;

	for (int wanted = 0; wanted <= 2; wanted++) {
		for (const struct ifaddrs *i = list->interfaces; i; i = i->ifa_next) {
			if (strcmp(i->ifa_name, name) != 0 || !gid_of(i->ifa_addr, &gid) || rank(&gid) != wanted)
				continue;
			int error = list_add(list, &gid, name, true);
			if (error != 0)
				return error;
		}
	}
	if (list->count > before)
		return 0;
	if (if_nametoindex(name) == 0) {
		log_write(LOG_ERROR, "UROCE_ADDR: \"%s\" is neither an IP address nor an interface of this host", name);
		return -EINVAL;
	}
	log_write(LOG_ERROR, "UROCE_ADDR: interface %s has no address", name);
	return -EADDRNOTAVAIL;
}

static int list_add_word(struct list *list, const char *start, size_t length)
{
	char word[INET6_ADDRSTRLEN + IF_NAMESIZE];

	while (length > 0 && *start == ' ') {
		start++;
		length--;
	}
	while (length > 0 && start[length - 1] == ' ')
		length--;
	if (length == 0 || length >= sizeof word) {
		log_write(LOG_ERROR, "UROCE_ADDR: \"%.*s\" is neither an IP address nor an interface of this host",
			  (int)(length < 64 ? length : 64), start);
		return -EINVAL;
	}
	memcpy(word, start, length);
	word[length] = '\0';
	int error = list_add_address(list, word);
	return error == NOT_ADDRESS ? list_add_interface(list, word) : error;
}

int udp_parse_addresses(const char *text, struct udp_address out[UDP_MAX_GIDS], unsigned *count)
{
	struct list list = { .address = out };
	struct ifaddrs *interfaces;
	int error = 0;

	if (getifaddrs(&interfaces) != 0) {
		error = -errno;
		log_write(LOG_ERROR, "UROCE_ADDR: cannot list the addresses of this host: %s", strerror(errno));
		return error;
	}
	list.interfaces = interfaces;
	for (const char *p = text; error == 0; p++) {
		size_t length = strcspn(p, ",");
		error = list_add_word(&list, p, length);
		p += length;
		if (*p == '\0')
			break;
	}
	freeifaddrs(interfaces);
	*count = list.count;
	return error;
}
