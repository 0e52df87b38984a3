/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever arrives at a connection manager: messages of any content, while the program does what it may, and time passes.
 *
 * Two connection managers, each with a listener, on a link of its own time. The input is a list of records: a selector, a length (one
 * byte), and that many bytes. The selector's lowest bit chooses the end. ACT: the program calls something, by the first byte, for the
 * endpoint that the second chooses; the third is a time. Otherwise the bytes are a message, which comes from the other end; REPAIR
 * makes its header that of a message, and puts in IDs and a service that an attacker would have to know. */
#include <stdbool.h>

#define FAKE_FLIGHTS 64
#include "../cm/fake_gsi.h"

#include "cm_parts.h"
#include "random.h"

enum { ACT = 0x80, REPAIR = 0x40, MOST = 12, ACTIONS = 12, STEPS = 2000 };
#define SERVICE UINT64_C(0x01061c06)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A program's endpoint. It is the heap's, so that one that is used after its end is seen. */
struct use {
	struct cm_endpoint endpoint;
	unsigned end;
};

static struct end {
	struct device device;
	struct cm *cm;
	struct use *use[MOST]; /* the first is the listener's */
	bool full;
} end[FAKE_NODES];
static uint32_t number;

int random_u32(uint32_t *out)
{
	number += 0x9e3779b9;
	*out = number ^ number >> 7;
	return 0;
}

static void must(bool held)
{
	if (!held)
		abort();
}

static struct use *new_use(unsigned at)
{
	for (unsigned i = 0; i < MOST; i++) {
		if (end[at].use[i])
			continue;
		struct use *use = calloc(1, sizeof *use);
		must(use && cm_add(end[at].cm, &use->endpoint) == 0);
		use->end = at;
		use->endpoint.mtu = IBV_MTU_1024;
		use->endpoint.path = (struct gsi_path){.own = fake.node[at].gid, .peer = fake.node[!at].gid};
		end[at].use[i] = use;
		return use;
	}
	return NULL;
}

static void remove_use(struct use **use)
{
	if (!*use)
		return;
	cm_remove(&(*use)->endpoint);
	must(!(*use)->endpoint.cm && (*use)->endpoint.timer.place == 0);
	free(*use);
	*use = NULL;
}

/* It is one that the program has. */
static struct use *known(struct cm_endpoint *endpoint)
{
	for (unsigned i = 0; i < FAKE_NODES; i++)
		for (unsigned j = 0; j < MOST; j++)
			if (end[i].use[j] && &end[i].use[j]->endpoint == endpoint)
				return end[i].use[j];
	abort();
}

static struct cm_endpoint *request(struct cm_endpoint *listener, const struct mad *mad)
{
	struct use *at = known(listener);

	must(listener->state == CM_LISTENING && (mad->kind == MAD_REQ || mad->kind == MAD_SIDR_REQ));
	struct use *use = end[at->end].full ? NULL : new_use(at->end);
	return use ? &use->endpoint : NULL;
}

static void requested(struct cm_endpoint *listener, struct cm_endpoint *endpoint, const struct mad *mad)
{
	must(known(listener)->end == known(endpoint)->end && mad->private_length <= sizeof mad->private_data);
	must(endpoint->state == CM_REQ_RECEIVED || endpoint->state == CM_SIDR_RECEIVED);
	must(endpoint->state != CM_REQ_RECEIVED || (endpoint->mtu >= IBV_MTU_256 && endpoint->mtu <= IBV_MTU_1024));
}

static void event(struct cm_endpoint *endpoint, enum cm_event what, int status, const struct mad *mad)
{
	known(endpoint);
	must(what <= CM_TIMEWAIT_EXIT && endpoint->state != CM_LISTENING && endpoint->state != CM_IDLE);
	must(status >= -ETIMEDOUT && status <= UINT16_MAX && (!mad || mad->private_length <= sizeof mad->private_data));
}

static const struct cm_user user = {.request = request, .requested = requested, .event = event};

static bool same_peer(const struct device *device, const union ibv_gid *dgid, const union ibv_gid *sgid)
{
	(void)device;
	return memcmp(dgid, sgid, sizeof *dgid) == 0;
}

/* ---- what a program does ---- */

static void listen_anew(unsigned at, enum gsi_where where)
{
	struct use *use = new_use(at);

	if (use && cm_reserve(&use->endpoint, &(struct gsi_name){.service = SERVICE, .where = where, .address = fake.node[at].gid}) == 0)
		must(cm_listen(&use->endpoint) == 0);
}

static void pass(uint64_t ns)
{
	uint64_t until = end[0].device.now + ns;

	for (unsigned i = 0; i < STEPS && fake_step(until); i++)
		;
	for (unsigned i = 0; i < FAKE_NODES; i++)
		end[i].device.now = until;
}

static void act(unsigned at, const uint8_t *bytes, size_t length)
{
	unsigned what = length > 0 ? bytes[0] : 0, time = length > 2 ? bytes[2] : 0;
	struct use **slot = &end[at].use[(length > 1 ? bytes[1] : 0u) % MOST], *use = *slot;
	struct mad message = {.qpn = 0x1234 + time, .responder_resources = 4, .initiator_depth = 4, .transport = time & 1, .private_length = 20};

	switch (what % ACTIONS) {
	case 0:
		pass((uint64_t)time * 100000);
		return;
	case 1:
		pass((uint64_t)time * 1000000000);
		return;
	case 2:
		use = new_use(at);
		if (use)
			must(cm_connect(&use->endpoint, SERVICE + (time & 1), &message) == 0);
		return;
	case 3:
		use = new_use(at);
		if (use)
			must(cm_resolve_service(&use->endpoint, SERVICE + (time & 1), &message) == 0);
		return;
	case 4:
		listen_anew(at, (enum gsi_where)(time % 4));
		return;
	case 5:
		end[at].full = time & 1;
		return;
	case 6:
		remove_use(slot);
		return;
	default:
		break;
	}
	if (!use)
		return;
	switch (what % ACTIONS) {
	case 7:
		(void)cm_accept(&use->endpoint, &message);
		return;
	case 8:
		(void)cm_confirm(&use->endpoint);
		return;
	case 9:
		(void)cm_reject(&use->endpoint, &message);
		return;
	case 10:
		(void)cm_disconnect(&use->endpoint);
		return;
	default:
		(void)cm_note_established(&use->endpoint);
		return;
	}
}

/* ---- what arrives ---- */

static void put(uint8_t *to, uint32_t value)
{
	for (int i = 3; i >= 0; i--, value >>= 8)
		to[i] = (uint8_t)value;
}

/* Bytes 17 and 24 to 31 choose; IBTA vol 1, 13.4.2 and 12.6. */
static void repair(unsigned at, uint8_t bytes[MAD_BYTES])
{
	const struct use *mine = end[at].use[bytes[28] % MOST], *peer = end[!at].use[bytes[24] % MOST];
	uint8_t kind = (uint8_t)(MAD_REQ + bytes[17] % 9);

	memcpy(bytes, (const uint8_t[4]){1, 7, 2, 3}, 4);
	bytes[16] = 0;
	bytes[17] = kind;
	if (peer)
		put(bytes + 24, kind == MAD_SIDR_REP && mine ? mine->endpoint.id : peer->endpoint.id);
	if (mine)
		put(bytes + 28, mine->endpoint.id);
	if (kind == MAD_REQ || kind == MAD_SIDR_REQ) {
		put(bytes + 32, 0);
		put(bytes + 36, (uint32_t)SERVICE);
	}
}

static void arrive(unsigned at, bool repaired, const uint8_t *data, size_t length)
{
	const struct gsi_path path = {.own = fake.node[at].gid, .peer = fake.node[!at].gid, .hop_limit = 64};
	uint8_t bytes[MAD_BYTES] = {0}, again[MAD_BYTES];
	struct mad mad, copy;

	memcpy(bytes, data, length < sizeof bytes ? length : sizeof bytes);
	if (repaired)
		repair(at, bytes);
	if (mad_decode(bytes, sizeof bytes, &mad) != 0)
		return;
	mad_encode(&mad, again);
	must(mad_decode(again, sizeof again, &copy) == 0 && copy.kind == mad.kind && copy.local == mad.local && copy.qpn == mad.qpn);
	must(memcmp(copy.private_data, mad.private_data, sizeof mad.private_data) == 0);
	fake.node[at].take(fake.node[at].arg, &mad, &path);
}

/* Every endpoint is one that the program has, and no more. */
static void check(void)
{
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		size_t count = 0;
		for (unsigned j = 0; j < MOST; j++)
			count += end[i].use[j] != NULL;
		/* One timer more: it looks whether the peers are there still. */
		must(end[i].cm->count == count && end[i].cm->ids.count == count && end[i].cm->timers.count <= count + 1);
	}
}

static void begin(void)
{
	memset(&fake, 0, sizeof fake);
	memset(end, 0, sizeof end);
	number = 0;
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		struct device *device = &end[i].device;
		device->now = 1000000000;
		device->mtu = IBV_MTU_1024;
		device->same_peer = same_peer;
		fake_node(device);
		must(timers_reserve(&device->timers, DEVICE_TIMERS) == 0);
		must(cm_open(device, &user, &end[i].cm) == 0 && cm_start(end[i].cm) == 0);
		listen_anew(i, GSI_ANY);
	}
}

static void finish(void)
{
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		cm_settle(end[i].cm);
		for (unsigned j = 0; j < MOST; j++)
			remove_use(&end[i].use[j]);
		must(!end[i].cm->listeners && end[i].cm->timers.count == 0);
		for (unsigned j = 0; j < CM_PEERS; j++)
			must(!end[i].cm->peers[j]);
	}
	check();
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		cm_close(&end[i].cm);
		timers_clear(&end[i].device.timers);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	begin();
	while (size >= 2) {
		uint8_t selector = data[0];
		size_t length = data[1] < size - 2 ? data[1] : size - 2;
		data += 2;
		size -= 2;
		if (selector & ACT)
			act(selector & 1, data, length);
		else
			arrive(selector & 1, selector & REPAIR, data, length);
		check();
		data += length;
		size -= length;
	}
	finish();
	return 0;
}
