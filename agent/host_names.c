/* SPDX-License-Identifier: Apache-2.0 */
#include "host_names.h"

#include "log.h"
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const uint8_t no_gid[16];

static bool parse_address(const char *text, uint8_t gid[16])
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	union ibv_gid out;

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		srdma_net_gid_of((struct sockaddr *)&v4, &out);
	else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1)
		srdma_net_gid_of((struct sockaddr *)&v6, &out);
	else
		return false;
	memcpy(gid, out.raw, 16);
	return true;
}

int host_names_take(struct srdma_peer_names *names, struct host_names *out)
{
	*out = (struct host_names){.names = *names, .gids = calloc(names->count + 1, sizeof *out->gids)};
	*names = (struct srdma_peer_names){.identity = ""};
	if (!out->gids) {
		host_names_clear(out);
		return srdma_fail(-ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < out->names.count; i++)
		if (out->names.list[i].kind == SRDMA_NAME_IP && parse_address(out->names.list[i].text, out->gids[out->count]))
			out->count++;
	return 0;
}

bool host_names_have(const struct host_names *host, const uint8_t gid[16])
{
	for (size_t i = 0; i < host->count; i++)
		if (memcmp(host->gids[i], gid, 16) == 0)
			return true;
	return false;
}

static bool has_name(const struct host_names *host, const char *name)
{
	uint8_t gid[16];

	if (parse_address(name, gid))
		return host_names_have(host, gid);
	for (size_t i = 0; i < host->names.count; i++) {
		const struct srdma_cert_name *own = &host->names.list[i];

		if (own->kind == SRDMA_NAME_DNS && own->whole && strcasecmp(own->text, name) == 0)
			return true;
	}
	return false;
}

bool host_names_cover(const struct host_names *host, const struct gid_map *map, const struct peer_end *end)
{
	bool has_gid = memcmp(end->gid, no_gid, sizeof no_gid) != 0;
	const struct gid_map_entry *entry = has_gid ? gid_map_find(map, end->gid) : gid_map_find_lid(map, end->lid);

	return (has_gid && host_names_have(host, end->gid)) || (entry && has_name(host, entry->name));
}

void host_names_clear(struct host_names *host)
{
	srdma_peer_names_clear(&host->names);
	free(host->gids);
	host->gids = NULL;
	host->count = 0;
}

const char *peer_end_format(const struct peer_end *end, char text[64])
{
	union ibv_gid gid;

	memcpy(gid.raw, end->gid, sizeof gid.raw);
	if (memcmp(end->gid, no_gid, sizeof no_gid) == 0)
		snprintf(text, 64, "LID %u", end->lid);
	else if (srdma_net_gid_is_v4(&gid))
		inet_ntop(AF_INET, gid.raw + 12, text, 64);
	else
		inet_ntop(AF_INET6, gid.raw, text, 64);
	return text;
}
