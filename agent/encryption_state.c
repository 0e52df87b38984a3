/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's IPsec states: with which algorithms the packets between two hosts are encrypted. */
#include "encryption_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* What the kernel's own names mean. Others, among them null, GMAC (which only authenticates) and ciphers with blocks of 64 bits, do not
 * count. */
static const char *const aeads[] = {"rfc4106(gcm(aes))", "rfc4309(ccm(aes))", "rfc7539esp(chacha20,poly1305)", NULL};
static const char *const ciphers[] = {"cbc(aes)", "rfc3686(ctr(aes))", "cbc(camellia)", "cbc(serpent)", "cbc(twofish)", "cbc(sm4)", NULL};

struct algorithms {
	char aead[64], cipher[64], authentication[64];
	bool other_interface, narrower;
	int offload;
};

static void take_algorithms(struct netlink_cursor body, struct algorithms *algorithms)
{
	struct netlink_attribute attribute;
	struct xfrm_user_offload offload;
	struct xfrm_mark mark;

	/* Each algorithm begins with its name, in 64 bytes. */
	while (netlink_attribute_next(&body, &attribute))
		switch (attribute.type) {
		case XFRMA_ALG_AEAD: netlink_text(&attribute, algorithms->aead, sizeof algorithms->aead); break;
		case XFRMA_ALG_CRYPT: netlink_text(&attribute, algorithms->cipher, sizeof algorithms->cipher); break;
		case XFRMA_ALG_AUTH:
		case XFRMA_ALG_AUTH_TRUNC: netlink_text(&attribute, algorithms->authentication, sizeof algorithms->authentication); break;
		case XFRMA_IF_ID: algorithms->other_interface = netlink_u32(&attribute) != 0; break;
		case XFRMA_MARK: algorithms->narrower |= !netlink_bytes(&attribute, &mark, sizeof mark) || mark.m != 0; break;
		case XFRMA_OFFLOAD_DEV:
			if (netlink_bytes(&attribute, &offload, sizeof offload) && (offload.flags & XFRM_OFFLOAD_PACKET))
				algorithms->offload = offload.ifindex;
			break;
		default: break;
		}
}

/* NULL: it encrypts and authenticates. */
static const char *find_fault(const struct algorithms *algorithms)
{
	if (algorithms->aead[0])
		return encryption_is_one_of(algorithms->aead, aeads) ? NULL : "an algorithm that does not count as encryption";
	if (strstr(algorithms->cipher, "null"))
		return "the null cipher";
	if (!encryption_is_one_of(algorithms->cipher, ciphers))
		return "a cipher that does not count as encryption";
	if (!algorithms->authentication[0] || strstr(algorithms->authentication, "null"))
		return "no authentication";
	return NULL;
}

int encryption_state_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_states *states = arg;
	const struct encryption_flow *flow = &states->flow;
	struct netlink_cursor body = message->body;
	struct algorithms algorithms = {0};
	struct xfrm_usersa_info info;
	enum encryption_match match;
	const char *fault;

	if (message->type != XFRM_MSG_NEWSA || !netlink_take(&body, &info, sizeof info) || info.id.proto != IPPROTO_ESP || info.family != flow->family ||
	    !encryption_is_address(&info.id.daddr, flow->target, flow->family) ||
	    (!encryption_is_address(&info.saddr, flow->source, flow->family) && !encryption_is_any(&info.saddr, flow->family)))
		return 0;
	take_algorithms(body, &algorithms);
	/* One without algorithms waits for its keys, and the kernel sends nothing with it. */
	if (algorithms.other_interface || (!algorithms.aead[0] && !algorithms.cipher[0]))
		return 0;
	/* Without a family it takes all packets of its two hosts. */
	match = info.sel.family == AF_UNSPEC ? ENCRYPTION_MATCHES_ALL : encryption_selector_match(&info.sel, flow);
	if (match == ENCRYPTION_MATCHES_NONE)
		return 0;
	fault = find_fault(&algorithms);
	if (fault) {
		states->bad = true;
		states->bad_spi = ntohl(info.id.spi);
		states->bad_reason = fault;
	} else if (match == ENCRYPTION_MATCHES_ALL && !algorithms.narrower && info.mode == states->mode &&
		   (states->reqid == 0 || states->reqid == info.reqid) && (flow->offload == 0 || algorithms.offload == flow->offload)) {
		states->good++;
		states->offloaded |= algorithms.offload != 0;
		memcpy(states->algorithm, algorithms.aead[0] ? algorithms.aead : algorithms.cipher, sizeof states->algorithm);
	}
	return 0;
}
