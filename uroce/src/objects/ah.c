/* SPDX-License-Identifier: Apache-2.0 */
/* Address handles: where a datagram goes, checked once. */
#include "ah.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "udp.h"

static void set_vector(const struct ibv_ah_attr *attr, struct address_vector *out)
{
	out->dgid = attr->grh.dgid;
	out->sgid_index = attr->grh.sgid_index;
	out->tclass = attr->grh.traffic_class;
	out->hop_limit = attr->grh.hop_limit;
}

int ah_resolve(struct device *device, const struct ibv_ah_attr *attr, struct address_vector *out)
{
	/* RoCE has no address without a GRH: annex A17.4.1. */
	if (attr->port_num != 1 || !attr->is_global)
		return EINVAL;
	if (device->udp && (attr->grh.sgid_index >= udp_gid_count(device->udp) ||
			    !udp_reachable(device->udp, attr->grh.sgid_index, &attr->grh.dgid)))
		return EINVAL;
	set_vector(attr, out);
	return 0;
}

/* Of a multicast group, which datagrams alone can be sent to. */
static int resolve_group(const struct device *device, const struct ibv_ah_attr *attr, struct address_vector *out)
{
	if (attr->port_num != 1 || (device->udp && !udp_reaches_group(device->udp, attr->grh.sgid_index, &attr->grh.dgid)))
		return EINVAL;
	set_vector(attr, out);
	return 0;
}

struct ibv_ah *ah_create(struct ibv_pd *ibpd, struct ibv_ah_attr *attr)
{
	struct pd *pd = pd_of(ibpd);
	struct ah *ah = calloc(1, sizeof *ah);
	if (!ah)
		return NULL;
	bool group = attr->is_global && gid_is_multicast(&attr->grh.dgid);
	int error = group ? resolve_group(pd->device, attr, &ah->av) : ah_resolve(pd->device, attr, &ah->av);
	if (error != 0) {
		free(ah);
		errno = error;
		return NULL;
	}
	ah->ibv.context = ibpd->context;
	ah->ibv.pd = ibpd;
	atomic_fetch_add(&pd->uses, 1);
	context_count(context_of(ibpd->context), &pd->device->counters->objects.ah, 1);
	return &ah->ibv;
}

int ah_destroy(struct ibv_ah *ibah)
{
	struct ah *ah = (struct ah *)ibah;
	struct pd *pd = pd_of(ibah->pd);
	atomic_fetch_sub(&pd->uses, 1);
	context_count(context_of(ibah->context), &pd->device->counters->objects.ah, -1);
	free(ah);
	return 0;
}

/* ---- from a received datagram ---- */

static bool checksum_fits(const struct iphdr *ip)
{
	uint16_t word[sizeof *ip / 2];
	uint32_t sum = 0;
	memcpy(word, ip, sizeof word);
	for (size_t i = 0; i < sizeof word / sizeof word[0]; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* An IPv4 header lies in the last 20 of the 40 bytes, and the first 20 mean nothing: annex A17.4.5. When they look like
 * the start of an IPv6 header, the IPv4 header's checksum decides. */
static bool is_v4(const struct ip6_hdr *v6, const struct iphdr *v4)
{
	if (v4->version != 4 || v4->ihl != 5)
		return false;
	return v6->ip6_vfc >> 4 != 6 || checksum_fits(v4);
}

static int find_gid(const struct device *device, const union ibv_gid *gid, uint8_t *index)
{
	if (!device->udp) {
		*index = 0;
		return 0;
	}
	for (unsigned i = 0; i < udp_gid_count(device->udp); i++) {
		if (memcmp(udp_gid(device->udp, i), gid, sizeof *gid) == 0) {
			*index = (uint8_t)i;
			return 0;
		}
	}
	return EINVAL;
}

int ah_init_from_wc(struct ibv_context *context, uint8_t port, const struct ibv_wc *wc, const struct ibv_grh *grh,
		    struct ibv_ah_attr *attr)
{
	struct ip6_hdr v6;
	struct iphdr v4;
	union ibv_gid local = {0};

	memset(attr, 0, sizeof *attr);
	if (port != 1 || !(wc->wc_flags & IBV_WC_GRH))
		return EINVAL;
	_Static_assert(sizeof v6 == WIRE_GRH && sizeof *grh == WIRE_GRH, "a GRH is as long as an IPv6 header");
	memcpy(&v6, grh, sizeof v6);
	memcpy(&v4, (const uint8_t *)grh + WIRE_GRH - sizeof v4, sizeof v4);

	if (is_v4(&v6, &v4)) {
		gid_map_v4(&attr->grh.dgid, v4.saddr);
		gid_map_v4(&local, v4.daddr);
		attr->grh.traffic_class = v4.tos;
	} else if (v6.ip6_vfc >> 4 == 6) {
		uint32_t flow = ntohl(v6.ip6_flow);
		memcpy(attr->grh.dgid.raw, &v6.ip6_src, sizeof attr->grh.dgid.raw);
		memcpy(local.raw, &v6.ip6_dst, sizeof local.raw);
		attr->grh.traffic_class = (uint8_t)(flow >> 20);
		attr->grh.flow_label = flow & 0xfffff;
	} else {
		return EINVAL;
	}
	attr->grh.hop_limit = 0xff; /* the limit that remains does not tell how far away the sender is */
	attr->is_global = 1;
	attr->port_num = port;
	attr->sl = wc->sl;
	attr->src_path_bits = wc->dlid_path_bits;
	attr->dlid = wc->slid;
	return find_gid(context_of(context)->device, &local, &attr->grh.sgid_index);
}

struct ibv_ah *ah_create_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port)
{
	struct ibv_ah_attr attr;
	int error = ah_init_from_wc(pd->context, port, wc, grh, &attr);
	if (error != 0) {
		errno = error;
		return NULL;
	}
	return ah_create(pd, &attr);
}
