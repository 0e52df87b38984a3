/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a program writes to /dev/infiniband/rdma_cm: commands of any content, on two channels of one process, whose messages reach itself
 * on a link of its own time.
 *
 * The input is a list of records: a selector, a byte, and twice as many bytes as it says. The selector's lowest bit chooses the channel, the
 * next five the command, and the others how much room there is for its answer, or that there is none where the command says. The bytes
 * are the command's structure. Its pointers are replaced by ones to as many bytes as it says, or by NULL. IDs are small numbers, or
 * nothing would ever be found. A command that is not known lets time pass, opens a channel, or closes one. */
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#define FAKE_FLIGHTS 64
#include "../cm/fake_gsi.h"

#include "cm_parts.h"
#include "engine.h"
#include "guard.h"
#include "own_device.h"
#include "random.h"
#include "ucma.h"
#include "ucma_parts.h"
#include "udp.h"

enum { CHANNELS = 2, IDS = 16, STEPS = 500, MOST_OPTION = 8192, LONGEST = 512, NOWHERE = 500 /* room for an answer, at NULL */ };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct device device;
static struct counters counters;
static int channel[CHANNELS];
static unsigned joined;
static uint32_t number;

static void must(bool held)
{
	if (!held)
		abort();
}

/* ---- in place of the rest of the device ---- */

int random_u32(uint32_t *out)
{
	number += 0x9e3779b9;
	*out = number ^ number >> 7;
	return 0;
}

struct device *own_device(void)
{
	return &device;
}

__be64 own_device_guid(void)
{
	return htobe64(1);
}

void engine_enter(struct device *entered)
{
	must(entered == &device);
}

void engine_leave(struct device *left)
{
	must(left == &device);
}

/* Memory is there, or it is NULL. */
bool guard_copy(void *to, const void *from, size_t length)
{
	if (length > 0 && (!to || !from))
		return false;
	for (size_t i = 0; i < length; i++)
		((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
	return true;
}

static const union ibv_gid gids[] = {{.raw = {[10] = 0xff, 0xff, 127, 0, 0, 1}}, {.raw = {[15] = 1}}};
enum { GIDS = sizeof gids / sizeof gids[0] };

unsigned udp_gid_count(const struct udp_link *link)
{
	(void)link;
	return GIDS;
}

const union ibv_gid *udp_gid(const struct udp_link *link, unsigned index)
{
	(void)link;
	must(index < GIDS);
	return &gids[index];
}

unsigned udp_find_gid(const struct udp_link *link, const union ibv_gid *gid)
{
	(void)link;
	unsigned index = 0;
	while (index < GIDS && memcmp(&gids[index], gid, sizeof *gid) != 0)
		index++;
	return index;
}

bool udp_is_loopback(const struct udp_link *link)
{
	(void)link;
	return true;
}

bool udp_reachable(const struct udp_link *link, unsigned index, const union ibv_gid *gid)
{
	(void)link;
	return index < GIDS && gid_is_loopback(gid);
}

bool udp_reaches_group(const struct udp_link *link, unsigned index, const union ibv_gid *gid)
{
	(void)link;
	return index < GIDS && gid_is_multicast(gid) && gid_is_v4(gid) == gid_is_v4(&gids[index]);
}

int udp_join(struct udp_link *link, const union ibv_gid *group)
{
	(void)link;
	must(gid_is_multicast(group));
	joined++;
	return 0;
}

void udp_leave(struct udp_link *link, const union ibv_gid *group)
{
	(void)link;
	(void)group;
	must(joined-- > 0);
}

/* ---- what a program does ---- */

static void pass(uint64_t ns)
{
	uint64_t until = device.now + ns;

	for (unsigned i = 0; i < STEPS && fake_step(until); i++)
		;
	device.now = until;
}

static void do_other(unsigned at, uint8_t what, uint8_t amount)
{
	if (what % 4 == 0) {
		ucma_close(channel[at]);
		close(channel[at]);
		channel[at] = ucma_open(O_NONBLOCK | O_CLOEXEC);
		must(channel[at] >= 0 && ucma_is(channel[at]));
	} else {
		pass((uint64_t)amount * (what % 4 == 1 ? 1000000 : 1000000000));
	}
}

/* Where a command has an ID, and a pointer for its answer: rdma/rdma_user_cm.h. -1: nowhere. */
static const struct shape {
	int id;
	int answer;
	size_t size;
} shapes[] = {
#define SHAPE(name, type, answer) [RDMA_USER_CM_CMD_##name] = {offsetof(struct rdma_ucm_##type, id), answer, sizeof(struct rdma_ucm_##type)}
	[RDMA_USER_CM_CMD_CREATE_ID] = {-1, offsetof(struct rdma_ucm_create_id, response), sizeof(struct rdma_ucm_create_id)},
	[RDMA_USER_CM_CMD_GET_EVENT] = {-1, 0, sizeof(struct rdma_ucm_get_event)},
	SHAPE(DESTROY_ID, destroy_id, 0),
	SHAPE(BIND_IP, bind_ip, 0),
	SHAPE(RESOLVE_IP, resolve_ip, -1),
	SHAPE(RESOLVE_ROUTE, resolve_route, -1),
	SHAPE(QUERY_ROUTE, query, 0),
	SHAPE(CONNECT, connect, -1),
	SHAPE(LISTEN, listen, -1),
	SHAPE(ACCEPT, accept, -1),
	SHAPE(REJECT, reject, -1),
	SHAPE(DISCONNECT, disconnect, -1),
	SHAPE(INIT_QP_ATTR, init_qp_attr, 0),
	SHAPE(SET_OPTION, set_option, -1),
	SHAPE(NOTIFY, notify, -1),
	SHAPE(JOIN_IP_MCAST, join_ip_mcast, 0),
	SHAPE(LEAVE_MCAST, destroy_id, 0),
	SHAPE(MIGRATE_ID, migrate_id, 0),
	SHAPE(QUERY, query, 0),
	SHAPE(BIND, bind, -1),
	SHAPE(RESOLVE_ADDR, resolve_addr, -1),
	SHAPE(JOIN_MCAST, join_mcast, 0),
};

static void command(unsigned at, unsigned kind, uint16_t room, const uint8_t *bytes, size_t length)
{
	const struct shape *shape = kind < sizeof shapes / sizeof shapes[0] ? &shapes[kind] : &shapes[RDMA_USER_CM_CMD_CREATE_ID];
	struct {
		struct rdma_ucm_cmd_hdr header;
		_Alignas(8) uint8_t bytes[LONGEST];
	} message = {.header = {.cmd = kind, .in = (uint16_t)length, .out = room}};
	uint8_t *answer = room == NOWHERE ? NULL : malloc(room), *value = NULL;
	uint32_t id;

	must(answer || room == NOWHERE);
	memcpy(message.bytes, bytes, length);
	if (shape->answer >= 0)
		memcpy(message.bytes + shape->answer, &answer, sizeof answer);
	if (shape->id >= 0) {
		memcpy(&id, message.bytes + shape->id, sizeof id);
		id %= IDS;
		memcpy(message.bytes + shape->id, &id, sizeof id);
	}
	if (kind == RDMA_USER_CM_CMD_MIGRATE_ID) {
		uint32_t fd = (uint32_t)channel[!at];
		memcpy(message.bytes + offsetof(struct rdma_ucm_migrate_id, fd), &fd, sizeof fd);
	}
	if (kind == RDMA_USER_CM_CMD_SET_OPTION) {
		uint32_t size;
		memcpy(&size, message.bytes + offsetof(struct rdma_ucm_set_option, optlen), sizeof size);
		size_t there = size < MOST_OPTION ? size : 1;
		value = calloc(1, there + 1);
		must(value);
		for (size_t i = 0; i < there; i++)
			value[i] = length > 0 ? bytes[i % length] : 0;
		memcpy(message.bytes, &value, sizeof value);
	}
	ssize_t n = ucma_write(channel[at], &message, sizeof message.header + length);
	must(n == -1 || (size_t)n == sizeof message.header + length);
	free(value);
	free(answer);
}

static void begin(void)
{
	memset(&fake, 0, sizeof fake);
	number = 0;
	if (device.counters) { /* one that has been used before: its connection manager stays, and its link is made anew */
		struct gsi *gsi = fake_node(&device);
		gsi->gid = gids[0];
		gsi->take = cm_take;
		gsi->arg = device.cm;
	} else {
		device.counters = &counters;
		device.mtu = IBV_MTU_1024;
		device.udp = (struct udp_link *)&device; /* nothing looks into it */
		device.now = 1000000000;
		device.same_peer = NULL;
		fake_node(&device)->gid = gids[0];
		must(timers_reserve(&device.timers, DEVICE_TIMERS) == 0);
	}
	for (unsigned i = 0; i < CHANNELS; i++) {
		channel[i] = ucma_open(O_NONBLOCK | O_CLOEXEC);
		must(channel[i] >= 0);
	}
}

static bool same_peer(const struct device *unused, const union ibv_gid *dgid, const union ibv_gid *sgid)
{
	(void)unused;
	return memcmp(dgid, sgid, sizeof *dgid) == 0;
}

static void finish(void)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		ucma_close(channel[i]);
		close(channel[i]);
	}
	must(device.cm->count == 0 && device.cm->ids.count == 0);
	must(device.cm->timers.count == 0);
	must(!device.cm->listeners && joined == 0);
	for (unsigned i = 0; i < CM_PEERS; i++)
		must(!device.cm->peers[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	begin();
	device.same_peer = same_peer;
	while (size >= 2) {
		unsigned at = data[0] & 1, kind = data[0] >> 1 & 31;
		static const uint16_t rooms[] = {LONGEST, 400, 8, NOWHERE};
		uint16_t room = rooms[data[0] >> 6];
		size_t length = 2u * data[1] < size - 2 ? 2u * data[1] : size - 2;
		data += 2;
		size -= 2;
		if (kind < sizeof shapes / sizeof shapes[0] && shapes[kind].size > 0)
			command(at, kind, room, data, length);
		else
			do_other(at, (uint8_t)kind, length > 0 ? data[0] : 1);
		data += length;
		size -= length;
	}
	finish();
	return 0;
}
