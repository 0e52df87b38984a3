/* SPDX-License-Identifier: Apache-2.0 */
#include "frames.h"

#include "array.h"
#include "cursor.h"
#include "log.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define QPN_MAX 0xffffffu
#define PSN_MAX 0xffffffu
#define LID_UNICAST_MAX 0xbfffu

static void begin_frame(struct srdma_writer *w, uint8_t *frame, enum srdma_frame_type type)
{
	srdma_writer_init(w, frame, SRDMA_FRAME_MAX);
	srdma_put_u16(w, 0);
	srdma_put_u8(w, SRDMA_PROTOCOL_VERSION);
	srdma_put_u8(w, (uint8_t)type);
}

static size_t finish_frame(struct srdma_writer *w)
{
	size_t total = srdma_writer_length(w);
	struct srdma_writer length;

	srdma_writer_init(&length, w->start, 2);
	srdma_put_u16(&length, (uint16_t)(total - SRDMA_FRAME_HEADER));
	return total;
}

size_t srdma_empty_encode(uint8_t *frame, enum srdma_frame_type type)
{
	struct srdma_writer w;

	begin_frame(&w, frame, type);
	return finish_frame(&w);
}

size_t srdma_program_encode(uint8_t *frame, enum srdma_frame_type type, const void *data, size_t length)
{
	struct srdma_writer w;

	begin_frame(&w, frame, type);
	srdma_put_bytes(&w, data, length);
	return finish_frame(&w);
}

size_t srdma_taken_encode(uint8_t *frame, uint64_t count)
{
	struct srdma_writer w;

	begin_frame(&w, frame, SRDMA_FRAME_CONTROL_TAKEN);
	srdma_put_u64(&w, count);
	return finish_frame(&w);
}

int srdma_taken_decode(const uint8_t *body, size_t length, uint64_t *count)
{
	struct srdma_reader r;

	srdma_reader_init(&r, body, length);
	*count = srdma_get_u64(&r);
	return srdma_reader_complete(&r)
		       ? 0
		       : srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed CONTROL_TAKEN of %zu byte%s", length, SRDMA_S(length));
}

size_t srdma_hello_encode(uint8_t *frame, enum srdma_frame_type type, const struct srdma_hello *hello)
{
	struct srdma_writer w;

	begin_frame(&w, frame, type);
	srdma_put_u8(&w, hello->link_layer);
	srdma_put_u8(&w, hello->path_mtu);
	srdma_put_u16(&w, hello->lid);
	srdma_put_bytes(&w, hello->gid.raw, sizeof hello->gid.raw);
	srdma_put_u32(&w, hello->qpn);
	srdma_put_u32(&w, hello->psn);
	srdma_put_u32(&w, hello->features);
	srdma_put_u32(&w, hello->message_size);
	srdma_put_u16(&w, hello->depth);
	srdma_put_u8(&w, hello->rd_initiator);
	srdma_put_u8(&w, hello->rd_responder);
	srdma_put_u64(&w, hello->region_address);
	srdma_put_u64(&w, hello->region_size);
	srdma_put_u32(&w, hello->region_rkey);
	srdma_put_u32(&w, hello->region_access);
	srdma_put_u64(&w, hello->client_id);
	srdma_put_u64(&w, 0);
	return finish_frame(&w);
}

int srdma_frame_header_decode(const uint8_t bytes[SRDMA_FRAME_HEADER], struct srdma_frame_header *header)
{
	struct srdma_reader r;

	srdma_reader_init(&r, bytes, SRDMA_FRAME_HEADER);
	header->length = srdma_get_u16(&r);
	header->version = srdma_get_u8(&r);
	header->type = srdma_get_u8(&r);
	if (header->length > SRDMA_FRAME_BODY_MAX)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a frame of type %u with a body of %u bytes; at most %u are allowed",
				  header->type, header->length, SRDMA_FRAME_BODY_MAX);
	return 0;
}

int srdma_hello_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, struct srdma_hello *hello)
{
	const char *name = type == SRDMA_FRAME_WELCOME ? "WELCOME" : "HELLO";
	struct srdma_hello h;
	struct srdma_reader r;

	srdma_reader_init(&r, body, length);
	h.link_layer = srdma_get_u8(&r);
	h.path_mtu = srdma_get_u8(&r);
	h.lid = srdma_get_u16(&r);
	srdma_get_bytes(&r, h.gid.raw, sizeof h.gid.raw);
	h.qpn = srdma_get_u32(&r);
	h.psn = srdma_get_u32(&r);
	h.features = srdma_get_u32(&r);
	h.message_size = srdma_get_u32(&r);
	h.depth = srdma_get_u16(&r);
	h.rd_initiator = srdma_get_u8(&r);
	h.rd_responder = srdma_get_u8(&r);
	h.region_address = srdma_get_u64(&r);
	h.region_size = srdma_get_u64(&r);
	h.region_rkey = srdma_get_u32(&r);
	h.region_access = srdma_get_u32(&r);
	h.client_id = srdma_get_u64(&r);
	uint64_t reserved = srdma_get_u64(&r);
	if (!srdma_reader_complete(&r))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a %s with a body of %zu byte%s; in version %u it has %u", name, length, SRDMA_S(length),
				  SRDMA_PROTOCOL_VERSION, SRDMA_HELLO_BODY);
	if (reserved != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a %s with a reserved field that is not zero", name);
	*hello = h;
	return 0;
}

static void put_text(struct srdma_writer *w, const char *text, size_t max)
{
	size_t length = strnlen(text, max);

	srdma_put_u8(w, (uint8_t)length);
	srdma_put_bytes(w, text, length);
}

/* Reads text that people will see, and replaces every byte that is not printable ASCII: it could control a terminal or a log, as U+0080
 * to U+009F also do. */
static void get_text(struct srdma_reader *r, char *text, size_t size)
{
	size_t length = srdma_get_u8(r);

	if (length >= size) {
		r->overrun = true;
		length = 0;
	}
	srdma_get_bytes(r, text, length);
	text[length] = '\0';
	srdma_make_printable(text, length);
}

size_t srdma_reject_encode(uint8_t *frame, const struct srdma_reject *reject)
{
	struct srdma_writer w;

	begin_frame(&w, frame, SRDMA_FRAME_REJECT);
	srdma_put_u16(&w, (uint16_t)reject->reason);
	srdma_put_u16(&w, 0);
	srdma_put_u32(&w, reject->retry_after_ms);
	put_text(&w, reject->text, sizeof reject->text - 1);
	return finish_frame(&w);
}

int srdma_reject_decode(const uint8_t *body, size_t length, struct srdma_reject *reject)
{
	struct srdma_reject out = {0};
	struct srdma_reader r;

	srdma_reader_init(&r, body, length);
	out.reason = (enum srdma_reject_reason)srdma_get_u16(&r);
	srdma_get_u16(&r);
	out.retry_after_ms = srdma_get_u32(&r);
	get_text(&r, out.text, sizeof out.text);
	if (!srdma_reader_complete(&r))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed REJECT of %zu byte%s", length, SRDMA_S(length));
	*reject = out;
	return 0;
}

size_t srdma_disconnect_encode(uint8_t *frame, enum srdma_frame_type type, const struct srdma_disconnect *disconnect)
{
	struct srdma_writer w;

	begin_frame(&w, frame, type);
	srdma_put_u64(&w, disconnect->messages_sent);
	put_text(&w, disconnect->reason, SRDMA_REASON_MAX);
	return finish_frame(&w);
}

int srdma_disconnect_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, struct srdma_disconnect *disconnect)
{
	struct srdma_disconnect out = {0};
	struct srdma_reader r;

	srdma_reader_init(&r, body, length);
	out.messages_sent = srdma_get_u64(&r);
	get_text(&r, out.reason, sizeof out.reason);
	if (!srdma_reader_complete(&r))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed %s of %zu byte%s",
				  type == SRDMA_FRAME_DISCONNECT_ACK ? "DISCONNECT_ACK" : "DISCONNECT", length, SRDMA_S(length));
	*disconnect = out;
	return 0;
}

size_t srdma_ready_encode(uint8_t *frame, bool with_rkey, uint32_t rkey)
{
	struct srdma_writer w;

	begin_frame(&w, frame, SRDMA_FRAME_READY);
	if (with_rkey)
		srdma_put_u32(&w, rkey);
	return finish_frame(&w);
}

int srdma_ready_decode(const uint8_t *body, size_t length, bool with_rkey, uint32_t *rkey)
{
	struct srdma_reader r;

	srdma_reader_init(&r, body, length);
	*rkey = with_rkey ? srdma_get_u32(&r) : 0;
	return srdma_reader_complete(&r)
		       ? 0
		       : srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed READY of %zu byte%s", length, SRDMA_S(length));
}

size_t srdma_epoch_encode(uint8_t *frame, enum srdma_frame_type type, const struct srdma_epoch_frame *epoch)
{
	struct srdma_writer w;

	begin_frame(&w, frame, type);
	srdma_put_u32(&w, epoch->number);
	if (type == SRDMA_FRAME_EPOCH_REQUEST || type == SRDMA_FRAME_EPOCH_BEGIN)
		srdma_put_u8(&w, epoch->reason);
	if (type == SRDMA_FRAME_EPOCH_BEGIN || type == SRDMA_FRAME_EPOCH_PARAMETERS) {
		srdma_put_u8(&w, epoch->broken);
		srdma_put_u64(&w, epoch->sends);
	}
	if (type == SRDMA_FRAME_EPOCH_PARAMETERS) {
		srdma_put_u64(&w, epoch->consumed);
		srdma_put_u32(&w, epoch->qpn);
		srdma_put_u32(&w, epoch->psn);
	}
	if (type == SRDMA_FRAME_EPOCH_READY)
		srdma_put_u32(&w, epoch->rkey);
	return finish_frame(&w);
}

static const char *epoch_fault(enum srdma_frame_type type, const struct srdma_epoch_frame *e, uint8_t broken)
{
	bool has_reason = type == SRDMA_FRAME_EPOCH_REQUEST || type == SRDMA_FRAME_EPOCH_BEGIN;

	if (has_reason && (e->reason < SRDMA_EPOCH_COUNT || e->reason > SRDMA_EPOCH_BROKEN))
		return "an unknown reason";
	if (broken > 1)
		return "unknown flags";
	if (type == SRDMA_FRAME_EPOCH_PARAMETERS && (e->qpn > QPN_MAX || e->qpn <= 1))
		return "an invalid QPN";
	return type == SRDMA_FRAME_EPOCH_PARAMETERS && e->psn > PSN_MAX ? "a PSN of more than 24 bits" : NULL;
}

int srdma_epoch_decode(enum srdma_frame_type type, const uint8_t *body, size_t length, struct srdma_epoch_frame *epoch)
{
	struct srdma_epoch_frame e = {0};
	struct srdma_reader r;
	uint8_t broken = 0;
	const char *fault;

	srdma_reader_init(&r, body, length);
	e.number = srdma_get_u32(&r);
	if (type == SRDMA_FRAME_EPOCH_REQUEST || type == SRDMA_FRAME_EPOCH_BEGIN)
		e.reason = srdma_get_u8(&r);
	if (type == SRDMA_FRAME_EPOCH_BEGIN || type == SRDMA_FRAME_EPOCH_PARAMETERS) {
		broken = srdma_get_u8(&r);
		e.sends = srdma_get_u64(&r);
	}
	if (type == SRDMA_FRAME_EPOCH_PARAMETERS) {
		e.consumed = srdma_get_u64(&r);
		e.qpn = srdma_get_u32(&r);
		e.psn = srdma_get_u32(&r);
	}
	if (type == SRDMA_FRAME_EPOCH_READY)
		e.rkey = srdma_get_u32(&r);
	if (!srdma_reader_complete(&r))
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed epoch frame of type %d, %zu byte%s", type, length, SRDMA_S(length));
	fault = epoch_fault(type, &e, broken);
	if (fault)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent an epoch frame of type %d with %s", type, fault);
	e.broken = broken != 0;
	*epoch = e;
	return 0;
}

int srdma_reject_set(struct srdma_reject *reject, enum srdma_reject_reason reason, uint32_t retry_after_ms, const char *format, ...)
{
	va_list args;

	reject->reason = reason;
	reject->retry_after_ms = retry_after_ms;
	va_start(args, format);
	vsnprintf(reject->text, sizeof reject->text, format, args);
	va_end(args);
	return SRDMA_EREJECTED;
}

const char *srdma_reject_reason_name(enum srdma_reject_reason reason)
{
	static const char *const names[] = {
		[SRDMA_REJECT_NONE] = "none",
		[SRDMA_REJECT_VERSION] = "version",
		[SRDMA_REJECT_MALFORMED] = "malformed",
		[SRDMA_REJECT_FULL] = "full",
		[SRDMA_REJECT_ADDRESS] = "address",
		[SRDMA_REJECT_FEATURE] = "feature",
		[SRDMA_REJECT_RESOURCES] = "resources",
		[SRDMA_REJECT_DRAINING] = "draining",
		[SRDMA_REJECT_REFUSED] = "refused",
		[SRDMA_REJECT_BUSY] = "busy",
	};

	return (size_t)reason < SRDMA_COUNT(names) ? names[reason] : "unknown";
}

/* On Ethernet the device turns the GID into a destination IP address, which must belong to a single host. */
static const char *gid_fault(const union ibv_gid *gid)
{
	static const union ibv_gid zero;

	if (memcmp(gid, &zero, sizeof zero) == 0)
		return "zero";
	if (gid->raw[0] == 0xff)
		return "a multicast address";
	if (!IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)gid->raw))
		return NULL;
	if (gid->raw[12] == 0)
		return "in 0.0.0.0/8, which no host can have";
	return gid->raw[12] >= 224 ? "an IPv4 multicast, reserved or broadcast address" : NULL;
}

static int validate_path(const struct srdma_hello *h, struct srdma_reject *reject)
{
	if (h->link_layer != IBV_LINK_LAYER_INFINIBAND && h->link_layer != IBV_LINK_LAYER_ETHERNET)
		return SRDMA_MALFORMED(reject, "link layer %u is neither InfiniBand (1) nor Ethernet (2)", h->link_layer);
	if (h->path_mtu < IBV_MTU_256 || h->path_mtu > IBV_MTU_4096)
		return SRDMA_MALFORMED(reject, "path MTU code %u is not 1 to 5", h->path_mtu);
	if (h->link_layer == IBV_LINK_LAYER_ETHERNET && gid_fault(&h->gid))
		return SRDMA_MALFORMED(reject, "the GID is %s", gid_fault(&h->gid));
	if (h->link_layer == IBV_LINK_LAYER_INFINIBAND && (h->lid == 0 || h->lid > LID_UNICAST_MAX))
		return SRDMA_MALFORMED(reject, "LID 0x%x is not a unicast LID", h->lid);
	if (h->qpn > QPN_MAX || h->qpn <= 1)
		return SRDMA_MALFORMED(reject, "QPN 0x%x is not 2 to 0xffffff", h->qpn);
	if (h->psn > PSN_MAX)
		return SRDMA_MALFORMED(reject, "the PSN has more than 24 bits");
	return 0;
}

static int validate_messages(const struct srdma_hello *h, struct srdma_reject *reject)
{
	if (h->features & ~SRDMA_FEATURES_KNOWN)
		return (srdma_reject_set(reject, SRDMA_REJECT_FEATURE, 0, "one end asks for the feature bits 0x%x that the other, which is older, does not know; turn them off, or upgrade it",
					 h->features & ~SRDMA_FEATURES_KNOWN),
			SRDMA_EPROTOCOL);
	if ((h->features & SRDMA_FEATURE_REGION_KEYS) && (~h->features & (SRDMA_FEATURE_REGIONS | SRDMA_FEATURE_EPOCHS)))
		return SRDMA_MALFORMED(reject, "new rkeys of named regions announced without epochs or without named regions");
	if (!(h->features & SRDMA_FEATURE_MESSAGES)) {
		if (h->features & (SRDMA_FEATURE_EPOCHS | SRDMA_FEATURE_SEALED))
			return SRDMA_MALFORMED(reject, "epochs or sealing asked for without the message feature");
		if (h->message_size != 0 || h->depth != 0)
			return SRDMA_MALFORMED(reject, "message size and depth given without the message feature");
		return 0;
	}
	if (h->message_size < SRDMA_MESSAGE_SIZE_MIN || h->message_size > SRDMA_MESSAGE_SIZE_MAX)
		return SRDMA_MALFORMED(reject, "message size %u is not %u to %u", h->message_size, SRDMA_MESSAGE_SIZE_MIN,
				 SRDMA_MESSAGE_SIZE_MAX);
	if (h->depth < 1 || h->depth > SRDMA_DEPTH_MAX)
		return SRDMA_MALFORMED(reject, "depth %u is not 1 to %u", h->depth, SRDMA_DEPTH_MAX);
	return 0;
}

static int validate_region(const struct srdma_hello *h, struct srdma_reject *reject)
{
	if (h->region_access & ~(uint32_t)(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ))
		return SRDMA_MALFORMED(reject, "unknown region access bits 0x%x", h->region_access);
	if (h->region_size == 0 && (h->region_address || h->region_rkey || h->region_access))
		return SRDMA_MALFORMED(reject, "region fields given without a region");
	if (h->region_size > UINT64_MAX - h->region_address)
		return SRDMA_MALFORMED(reject, "the region ends beyond the address space");
	return 0;
}

int srdma_hello_validate(const struct srdma_hello *h, bool welcome, struct srdma_reject *reject)
{
	int ret = validate_path(h, reject);

	if (ret == 0)
		ret = validate_messages(h, reject);
	if (ret == 0)
		ret = validate_region(h, reject);
	if (ret == 0 && (h->region_access & IBV_ACCESS_REMOTE_READ) && h->rd_responder == 0)
		ret = SRDMA_MALFORMED(reject, "a readable region is offered, but no RDMA read can be answered");
	if (ret == 0 && (h->features & SRDMA_FEATURE_WINDOW) && (welcome || h->region_size == 0 || h->region_rkey != 0))
		ret = SRDMA_MALFORMED(reject, "an rkey is announced for READY where none is due");
	if (ret == 0 && (h->features & SRDMA_FEATURE_SEALED) && h->region_rkey != 0)
		ret = SRDMA_MALFORMED(reject, "a sealed region with an rkey");
	if (ret == 0 && (h->features & SRDMA_FEATURE_SEALED) && (h->features & SRDMA_FEATURE_WINDOW))
		ret = SRDMA_MALFORMED(reject, "an rkey is announced for READY, and a sealed region has none");
	if (ret == 0 && !welcome && h->client_id != 0)
		ret = SRDMA_MALFORMED(reject, "a HELLO has a client id");
	return ret;
}
