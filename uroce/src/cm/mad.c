/* SPDX-License-Identifier: Apache-2.0 */
#include "mad.h"

#include <errno.h>
#include <string.h>

#include "wire.h"

enum {
	HEADER = 24, /* common to all management datagrams */
	BASE_VERSION = 1,
	CLASS = 0x07,
	CLASS_VERSION = 2,
	METHOD_SEND = 0x03,
	/* Of the header. */
	AT_CLASS = 1,
	AT_CLASS_VERSION = 2,
	AT_METHOD = 3,
	AT_TRANSACTION = 8,
	AT_ATTRIBUTE = 16,
	AT_MODIFIER = 20,
	QPN_MASK = 0xffffff,
	/* Of a REQ: the LIDs and GIDs of the alternate path. */
	ALTERNATE_AT = 96,
	ALTERNATE_BYTES = 36,
};

/* Where the private data of a message begins and ends, behind the header. */
struct room {
	uint8_t at;
	uint8_t size;
};

static const struct room rooms[] = {
	[MAD_REQ] = {140, 92},  [MAD_MRA] = {10, 222},	[MAD_REJ] = {84, 148},	     [MAD_REP] = {36, 196},	 [MAD_RTU] = {8, 224},
	[MAD_DREQ] = {12, 220}, [MAD_DREP] = {8, 224}, [MAD_SIDR_REQ] = {16, 216}, [MAD_SIDR_REP] = {96, 136},
	[MAD_LAP] = {64, 168},	[MAD_APR] = {84, 148},
};

static struct room room_of(unsigned kind)
{
	return kind < sizeof rooms / sizeof rooms[0] ? rooms[kind] : (struct room){0, 0};
}

size_t mad_private_room(enum mad_kind kind)
{
	return room_of(kind).size;
}

static bool carries_ece(enum mad_kind kind)
{
	return kind == MAD_REQ || kind == MAD_REP || kind == MAD_SIDR_REP;
}

/* ---- numbers in network order ---- */

static uint64_t get(const uint8_t *from, size_t bytes)
{
	uint64_t value = 0;
	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | from[i];
	return value;
}

static void put(uint8_t *to, size_t bytes, uint64_t value)
{
	for (size_t i = bytes; i > 0; i--, value >>= 8)
		to[i - 1] = (uint8_t)value;
}

/* ---- decoding: `b` is the message behind the header ---- */

static void decode_req(const uint8_t *b, struct mad *out)
{
	out->local = (uint32_t)get(b, 4);
	out->ece_vendor = (uint32_t)get(b + 5, 3);
	out->service = get(b + 8, 8);
	out->guid = get(b + 16, 8);
	out->qkey = (uint32_t)get(b + 28, 4);
	out->qpn = (uint32_t)get(b + 32, 3);
	out->responder_resources = b[35];
	out->initiator_depth = b[39];
	out->remote_timeout = b[43] >> 3;
	out->transport = b[43] >> 1 & 3;
	out->flow_control = b[43] & 1;
	out->psn = (uint32_t)get(b + 44, 3);
	out->local_timeout = b[47] >> 3;
	out->retry_count = b[47] & 7;
	out->pkey = (uint16_t)get(b + 48, 2);
	out->mtu = b[50] >> 4;
	out->rnr_retry_count = b[50] & 7;
	out->max_retries = b[51] >> 4;
	out->srq = b[51] >> 3 & 1;
	memcpy(out->local_gid.raw, b + 56, 16);
	memcpy(out->remote_gid.raw, b + 72, 16);
	out->rate = b[91] & 0x3f;
	out->tclass = b[92];
	out->hop_limit = b[93];
	out->ack_timeout = b[95] >> 3;
	for (size_t i = ALTERNATE_AT; i < ALTERNATE_AT + ALTERNATE_BYTES; i++)
		out->alternate = out->alternate || b[i] != 0;
}

static void decode_rep(const uint8_t *b, struct mad *out)
{
	out->qkey = (uint32_t)get(b + 8, 4);
	out->qpn = (uint32_t)get(b + 12, 3);
	out->psn = (uint32_t)get(b + 20, 3);
	out->responder_resources = b[24];
	out->initiator_depth = b[25];
	out->target_ack_delay = b[26] >> 3;
	out->failover = b[26] >> 1 & 3;
	out->flow_control = b[26] & 1;
	out->rnr_retry_count = b[27] >> 5;
	out->srq = b[27] >> 4 & 1;
	out->guid = get(b + 28, 8);
	out->ece_vendor = (uint32_t)b[15] << 16 | (uint32_t)b[19] << 8 | b[23];
}

static void decode_rej(const uint8_t *b, struct mad *out)
{
	out->about = b[8] >> 6;
	out->info_length = b[9] >> 1;
	if (out->info_length > MAD_REJ_INFO)
		out->info_length = MAD_REJ_INFO;
	out->reason = (uint16_t)get(b + 10, 2);
	memcpy(out->info, b + 12, out->info_length);
}

static void decode_apr(const uint8_t *b, struct mad *out)
{
	out->info_length = b[8] < MAD_REJ_INFO ? b[8] : MAD_REJ_INFO;
	out->reason = b[9];
	memcpy(out->info, b + 12, out->info_length);
}

static void decode_sidr(const uint8_t *b, struct mad *out)
{
	out->remote = 0;
	if (out->kind == MAD_SIDR_REQ) {
		out->pkey = (uint16_t)get(b + 4, 2);
		out->service = get(b + 8, 8);
		return;
	}
	out->reason = b[4];
	out->info_length = b[5];
	out->qpn = (uint32_t)get(b + 8, 3);
	out->service = get(b + 12, 8);
	out->qkey = (uint32_t)get(b + 20, 4);
	out->ece_vendor = (uint32_t)get(b + 6, 2) << 8 | b[11];
}

static bool is_plausible(const struct mad *mad)
{
	switch (mad->kind) {
	case MAD_REQ:
		return mad->transport <= 1 && mad->qpn > WIRE_GSI_QPN && mad->qpn < QPN_MASK && mad->mtu >= IBV_MTU_256 && mad->mtu <= IBV_MTU_4096;
	case MAD_REP:
		return mad->qpn > WIRE_GSI_QPN && mad->qpn < QPN_MASK;
	default:
		return true;
	}
}

int mad_decode(const uint8_t *bytes, size_t length, struct mad *out)
{
	if (length < MAD_BYTES || bytes[0] != BASE_VERSION || bytes[AT_CLASS] != CLASS || bytes[AT_CLASS_VERSION] != CLASS_VERSION ||
	    bytes[AT_METHOD] != METHOD_SEND)
		return -EBADMSG;
	unsigned kind = (unsigned)get(bytes + AT_ATTRIBUTE, 2);
	struct room room = room_of(kind);
	if (room.size == 0)
		return -EBADMSG;
	const uint8_t *b = bytes + HEADER;
	*out = (struct mad){
		.kind = (enum mad_kind)kind,
		.transaction = get(bytes + AT_TRANSACTION, 8),
		.local = (uint32_t)get(b, 4),
		.remote = (uint32_t)get(b + 4, 4),
		.private_length = room.size,
	};
	memcpy(out->private_data, b + room.at, room.size);
	if (carries_ece(out->kind))
		out->ece_options = (uint32_t)get(bytes + AT_MODIFIER, 4);
	switch (out->kind) {
	case MAD_REQ:
		out->remote = 0;
		decode_req(b, out);
		break;
	case MAD_REP:
		decode_rep(b, out);
		break;
	case MAD_REJ:
		decode_rej(b, out);
		break;
	case MAD_MRA:
		out->about = b[8] >> 6;
		out->service_timeout = b[9] >> 3;
		break;
	case MAD_DREQ:
		out->qpn = (uint32_t)get(b + 8, 3);
		break;
	case MAD_LAP:
		out->qpn = (uint32_t)get(b + 12, 3);
		out->remote_timeout = b[15] >> 3;
		break;
	case MAD_APR:
		decode_apr(b, out);
		break;
	case MAD_SIDR_REQ:
	case MAD_SIDR_REP:
		decode_sidr(b, out);
		break;
	default:
		break;
	}
	return is_plausible(out) ? 0 : -EBADMSG;
}

/* ---- encoding ---- */

static void encode_req(const struct mad *in, uint8_t *b)
{
	put(b + 4, 4, in->ece_vendor & 0xffffff);
	put(b + 8, 8, in->service);
	put(b + 16, 8, in->guid);
	put(b + 28, 4, in->qkey);
	put(b + 32, 3, in->qpn);
	b[35] = in->responder_resources;
	b[39] = in->initiator_depth;
	b[43] = (uint8_t)(in->remote_timeout << 3 | (in->transport & 3) << 1 | in->flow_control);
	put(b + 44, 3, in->psn);
	b[47] = (uint8_t)(in->local_timeout << 3 | (in->retry_count & 7));
	put(b + 48, 2, in->pkey);
	b[50] = (uint8_t)(in->mtu << 4 | (in->rnr_retry_count & 7));
	b[51] = (uint8_t)(in->max_retries << 4 | in->srq << 3);
	memcpy(b + 56, in->local_gid.raw, 16);
	memcpy(b + 72, in->remote_gid.raw, 16);
	b[91] = in->rate & 0x3f;
	b[92] = in->tclass;
	b[93] = in->hop_limit;
	b[94] = (uint8_t)((in->hop_limit <= 1) << 3); /* within the subnet */
	b[95] = (uint8_t)(in->ack_timeout << 3);
}

static void encode_rep(const struct mad *in, uint8_t *b)
{
	put(b + 8, 4, in->qkey);
	put(b + 12, 3, in->qpn);
	put(b + 20, 3, in->psn);
	b[24] = in->responder_resources;
	b[25] = in->initiator_depth;
	b[26] = (uint8_t)(in->target_ack_delay << 3 | (in->failover & 3) << 1 | in->flow_control);
	b[27] = (uint8_t)((in->rnr_retry_count & 7) << 5 | in->srq << 4);
	put(b + 28, 8, in->guid);
	b[15] = (uint8_t)(in->ece_vendor >> 16);
	b[19] = (uint8_t)(in->ece_vendor >> 8);
	b[23] = (uint8_t)in->ece_vendor;
}

static void encode_rej(const struct mad *in, uint8_t *b)
{
	b[8] = (uint8_t)(in->about << 6);
	b[9] = (uint8_t)(in->info_length << 1);
	put(b + 10, 2, in->reason);
	memcpy(b + 12, in->info, in->info_length);
}

static void encode_apr(const struct mad *in, uint8_t *b)
{
	b[8] = in->info_length;
	b[9] = (uint8_t)in->reason;
	memcpy(b + 12, in->info, in->info_length);
}

static void encode_sidr(const struct mad *in, uint8_t *b)
{
	if (in->kind == MAD_SIDR_REQ) {
		put(b + 4, 2, in->pkey);
		put(b + 8, 8, in->service);
		return;
	}
	b[4] = (uint8_t)in->reason;
	b[5] = in->info_length;
	put(b + 8, 3, in->qpn);
	put(b + 12, 8, in->service);
	put(b + 20, 4, in->qkey);
	put(b + 6, 2, in->ece_vendor >> 8 & 0xffff);
	b[11] = (uint8_t)in->ece_vendor;
}

void mad_encode(const struct mad *in, uint8_t bytes[MAD_BYTES])
{
	struct room room = room_of(in->kind);
	uint8_t *b = bytes + HEADER;

	memset(bytes, 0, MAD_BYTES);
	bytes[0] = BASE_VERSION;
	bytes[AT_CLASS] = CLASS;
	bytes[AT_CLASS_VERSION] = CLASS_VERSION;
	bytes[AT_METHOD] = METHOD_SEND;
	put(bytes + AT_TRANSACTION, 8, in->transaction);
	put(bytes + AT_ATTRIBUTE, 2, in->kind);
	if (carries_ece(in->kind))
		put(bytes + AT_MODIFIER, 4, in->ece_options);
	put(b, 4, in->local);
	put(b + 4, 4, in->remote);
	switch (in->kind) {
	case MAD_REQ:
		encode_req(in, b);
		break;
	case MAD_REP:
		encode_rep(in, b);
		break;
	case MAD_REJ:
		encode_rej(in, b);
		break;
	case MAD_MRA:
		b[8] = (uint8_t)(in->about << 6);
		b[9] = (uint8_t)(in->service_timeout << 3);
		break;
	case MAD_DREQ:
		put(b + 8, 3, in->qpn);
		break;
	case MAD_LAP:
		put(b + 12, 3, in->qpn);
		b[15] = (uint8_t)(in->remote_timeout << 3);
		break;
	case MAD_APR:
		encode_apr(in, b);
		break;
	case MAD_SIDR_REQ:
	case MAD_SIDR_REP:
		encode_sidr(in, b);
		break;
	default:
		break;
	}
	memcpy(b + room.at, in->private_data, in->private_length < room.size ? in->private_length : room.size);
}

/* ---- the addresses of IP programs ---- */

enum { IP_VERSION_AT = 1, IP_PORT_AT = 2, IP_SOURCE_AT = 4, IP_DESTINATION_AT = 20 };

static void read_address(const uint8_t bytes[16], bool v4, union ibv_gid *out)
{
	uint32_t address;

	if (v4) {
		memcpy(&address, bytes + 12, sizeof address);
		gid_map_v4(out, address);
	} else {
		memcpy(out->raw, bytes, sizeof out->raw);
	}
}

bool mad_read_ip(const uint8_t *bytes, size_t length, struct mad_ip *out)
{
	if (length < MAD_IP_BYTES || bytes[0] != 0 || (bytes[IP_VERSION_AT] >> 4 != 4 && bytes[IP_VERSION_AT] >> 4 != 6))
		return false;
	out->v4 = bytes[IP_VERSION_AT] >> 4 == 4;
	out->port = (uint16_t)get(bytes + IP_PORT_AT, 2);
	read_address(bytes + IP_SOURCE_AT, out->v4, &out->source);
	read_address(bytes + IP_DESTINATION_AT, out->v4, &out->destination);
	return true;
}

static void write_address(const union ibv_gid *address, bool v4, uint8_t bytes[16])
{
	if (v4)
		memcpy(bytes + 12, address->raw + 12, 4);
	else
		memcpy(bytes, address->raw, sizeof address->raw);
}

void mad_write_ip(const struct mad_ip *in, uint8_t bytes[MAD_IP_BYTES])
{
	memset(bytes, 0, MAD_IP_BYTES);
	bytes[IP_VERSION_AT] = in->v4 ? 4 << 4 : 6 << 4;
	put(bytes + IP_PORT_AT, 2, in->port);
	write_address(&in->source, in->v4, bytes + IP_SOURCE_AT);
	write_address(&in->destination, in->v4, bytes + IP_DESTINATION_AT);
}
