/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of ucma.c, as its files see them. All under the device's lock. */
#ifndef UROCE_UCMA_PARTS_H
#define UROCE_UCMA_PARTS_H

#include <netinet/in.h>
#include <rdma/rdma_user_cm.h>
#include <semaphore.h>
#include <sys/socket.h>

#include "cm.h"

enum {
	UCMA_EVENTS = 65536, /* not fetched, of one file */
	UCMA_IDS = 65536,    /* librdmacm has room for so many numbers */
	UCMA_MULTICASTS = 4096, /* joined, by all IDs */
	UCMA_BACKLOG = 1024,
	UCMA_HOPS = 64,
	UCMA_UDP_QKEY = 0x01234567, /* RDMA_UDP_QKEY of rdma_cma.h */
	UCMA_LONGEST_TIMEOUT = 31,
	UCMA_LIFETIME = 18,  /* of a packet: 4.096 us times 2 to this power, as the kernel has it for RoCE */
};

/* rdma_cma.h's, which the kernel's header leaves to it. */
enum ucma_event_kind {
	UCMA_ADDR_RESOLVED,
	UCMA_ADDR_ERROR,
	UCMA_ROUTE_RESOLVED,
	UCMA_ROUTE_ERROR,
	UCMA_CONNECT_REQUEST,
	UCMA_CONNECT_RESPONSE,
	UCMA_CONNECT_ERROR,
	UCMA_UNREACHABLE,
	UCMA_REJECTED,
	UCMA_ESTABLISHED,
	UCMA_DISCONNECTED,
	UCMA_DEVICE_REMOVAL,
	UCMA_MULTICAST_JOIN,
	UCMA_MULTICAST_ERROR,
	UCMA_ADDR_CHANGE,
	UCMA_TIMEWAIT_EXIT,
	UCMA_ADDRINFO_RESOLVED,
	UCMA_ADDRINFO_ERROR,
	UCMA_USER,
	UCMA_INTERNAL,
};

/* The kernel's struct sockaddr_ib of AF_IB, which not all C libraries have: a GID, and a service in place of a port. */
enum { UCMA_AF_IB = 27 };
struct ucma_address_ib {
	uint16_t family;
	__be16 pkey;
	uint32_t flow;
	union ibv_gid gid;
	__be64 service;
	__be64 service_mask;
	uint64_t scope;
};
_Static_assert(sizeof(struct ucma_address_ib) == 48 && offsetof(struct ucma_address_ib, service) == 24, "the kernel's layout");

struct ucma_id;

struct ucma_event {
	struct ucma_event *next;
	struct ucma_id *id;   /* whose it is: of a request, the listener */
	struct ucma_id *made; /* by a request; NULL otherwise */
	struct ucma_multicast *multicast; /* which was joined; NULL otherwise */
	struct rdma_ucm_event_resp resp;
};

/* A thread that waits for an event. It is called when there is one, and comes for it; meanwhile another may have taken it. */
struct ucma_waiter {
	struct ucma_file *file;
	struct ucma_waiter *next;
	bool called;
	sem_t woken;
};

/* One opening of the character device: an event channel. */
struct ucma_file {
	struct device *device;
	struct ucma *ucma;
	int fd;        /* the program's: readable while there are events that no called thread comes for */
	int drain_fd;  /* the same end of the pipe, for us */
	int signal_fd; /* the other end */
	unsigned users; /* the descriptor, and calls under way; guarded by ucma.c's lock and not the device's */
	uint64_t inode;   /* of the pipe: a descriptor of that number may be another file by now */
	struct ucma_event *first;
	struct ucma_event **last;
	unsigned events;
	bool shown; /* the pipe has a byte, unless the program has read it */
	struct ucma_waiter *waiters; /* first come, first served */
	unsigned called; /* threads that come */
};

struct ucma_id {
	struct cm_endpoint endpoint;
	struct ucma_file *file;
	uint32_t handle;
	uint64_t uid; /* the program's name of it; 0: not yet accepted */
	uint16_t port_space;
	uint8_t qp_type;
	uint32_t events_reported;
	struct sockaddr_storage source;
	struct sockaddr_storage destination;
	bool bound;     /* to the device: `endpoint.path.own` is set */
	bool resolved;  /* the destination's GID too */
	bool routed;
	uint32_t qkey;
	uint8_t tos;
	uint8_t ack_timeout; /* 0: the default */
	bool reuses_address;
	bool family_told; /* the program has set the next */
	bool one_family;  /* of all addresses, those of its family alone */
	/* Of a listener. */
	unsigned backlog; /* requests that it may still hold for the program to fetch */
	/* Of one that a request made. */
	struct ucma_id *listener; /* NULL: the program knows of it, or the listener has gone */
};

/* A group that an ID has joined. */
struct ucma_multicast {
	struct ucma_multicast *next;
	struct ucma_id *id;
	uint32_t handle;
	uint64_t uid; /* the program's name of it */
	uint32_t events_reported;
	union ibv_gid group;
	uint8_t sgid_index;
	bool member; /* it receives, too */
};

struct ucma {
	struct device *device;
	struct cm *cm;
	struct ucma_id **ids; /* by handle */
	uint32_t room;
	uint32_t lowest; /* no handle below it is free */
	struct ucma_multicast *multicasts;
	unsigned multicast_count;
	uint32_t next_multicast; /* handle */
	struct ucma *left; /* the parent's, for leak checkers */
};

/* ---- ucma.c ---- */

/* The file of a descriptor, with one more user; NULL: it is none of ours. */
struct ucma_file *ucma_hold(int fd);
void ucma_release(struct ucma_file *file);

/* ---- ucma_id.c ---- */

/* What the connection manager calls. */
extern const struct cm_user ucma_user;
/* -ENOENT: there is none of that number; -EINVAL: it is another file's. */
int ucma_id_find(struct ucma_file *file, uint32_t handle, struct ucma_id **out);
int ucma_id_new(struct ucma_file *file, uint64_t uid, uint16_t port_space, uint8_t qp_type, struct ucma_id **out);
void ucma_id_destroy(struct ucma_id *id);
/* The program knows of a request: its listener has room for another. */
void ucma_id_leave_listener(struct ucma_id *id);

static inline bool ucma_id_is_datagram(const struct ucma_id *id)
{
	return id->qp_type == IBV_QPT_UD;
}

/* ---- ucma_multicast.c ---- */

/* The event follows. -EINVAL: the ID is not bound, or is not one of datagrams, or the address is no group's; -ENOMEM; others of udp_join. */
int ucma_multicast_join(struct ucma_id *id, uint64_t uid, const struct sockaddr_storage *address, bool sends_only, uint32_t *handle);
/* -ENOENT: there is none; -EINVAL: it is another file's. */
int ucma_multicast_leave(struct ucma_file *file, uint32_t handle, uint32_t *events_reported);
void ucma_multicast_leave_all(struct ucma_id *id);

/* Whether the private data of such a message begins with the addresses of an IP program, which are not the program's. */
static inline bool ucma_id_hides_ip(const struct ucma_id *id, enum mad_kind kind)
{
	return (kind == MAD_REQ || kind == MAD_SIDR_REQ) && id->source.ss_family != UCMA_AF_IB;
}

/* ---- ucma_bind.c ---- */

/* 0 or a negative errno. */
int ucma_bind(struct ucma_id *id, const struct sockaddr_storage *address);
/* The port of one that is bound to an address that others may have, too: for itself alone. */
int ucma_reserve(struct ucma_id *id);
/* What is "all addresses" to the ID. -EINVAL: it has got further than an address. */
int ucma_set_one_family(struct ucma_id *id, bool one_family);
/* 0, and an event follows; or -EINVAL and the errors of ucma_bind, which it does first. */
int ucma_resolve(struct ucma_id *id, const struct sockaddr_storage *source, const struct sockaddr_storage *destination);

/* ---- ucma_command.c ---- */

/* Runs any but GET_EVENT: 0 or a negative errno. `other`: the file that MIGRATE_ID names, or NULL. `cmd`: its structure, with zeros
 * behind `length` bytes. */
int ucma_command(struct ucma_file *file, struct ucma_file *other, const struct rdma_ucm_cmd_hdr *header, const void *cmd, size_t length);
/* Puts an answer where the program has given room for it: as much as there is room for. -EFAULT: it has not. */
int ucma_respond(const struct rdma_ucm_cmd_hdr *header, uint64_t address, const void *answer, size_t length);

/* ---- ucma_address.c ---- */

/* Bytes of an address of a family that is known here; 0: another. */
size_t ucma_address_size(const struct sockaddr_storage *address);
bool ucma_address_is_any(const struct sockaddr_storage *address);
uint16_t ucma_address_port(const struct sockaddr_storage *address);
void ucma_address_set_port(struct sockaddr_storage *address, uint16_t port);
bool ucma_address_is_ib(const struct sockaddr_storage *address);
/* An address of AF_IB. */
void ucma_address_make_ib(const union ibv_gid *gid, uint64_t service, struct sockaddr_storage *out);
/* What is listened to or asked for at an address, by an ID of this port space. */
uint64_t ucma_address_service(uint16_t port_space, const struct sockaddr_storage *address);
/* Of AF_IB: whether its service is of a port space that an ID of this one may use; the rest of the service, but for the port, is then
 * set as that one has it. True for others. */
bool ucma_address_select_service(uint16_t port_space, struct sockaddr_storage *address);
void ucma_address_to_gid(const struct sockaddr_storage *address, union ibv_gid *out);
void ucma_address_from_gid(const union ibv_gid *gid, uint16_t port, struct sockaddr_storage *out);
/* The device's GID for an address of this host; -ENODEV: it has none. */
int ucma_find_own(const struct device *device, const struct sockaddr_storage *address, unsigned *index);
/* The way to a destination, from `source` or (any, or no family) from what the routing table says, which it is set to. Negative: an
 * errno. */
int ucma_find_path(const struct device *device, struct sockaddr_storage *source, const struct sockaddr_storage *destination,
		   struct gsi_path *out);

/* ---- ucma_option.c ---- */

/* 0, -EINVAL or -ENOSYS. `value` has `length` bytes. */
int ucma_set_option(struct ucma_id *id, uint32_t level, uint32_t name, const void *value, size_t length);

/* ---- ucma_event.c ---- */

/* An event with this status, for the ID's file. NULL: no memory, or too many; logged. */
struct ucma_event *ucma_event_new(struct ucma_id *id, enum ucma_event_kind kind, int status);
void ucma_event_queue(struct ucma_event *event);
/* The thread is called when there is an event. */
void ucma_event_wait(struct ucma_waiter *waiter);
/* It waits no more: it has been called, or something else has come. */
void ucma_event_stop_waiting(struct ucma_waiter *waiter);
/* Answers with the oldest, for a thread that has been called or has not waited. -EAGAIN: there is none; -EFAULT: it stays. */
int ucma_event_take(struct ucma_waiter *waiter, const struct rdma_ucm_cmd_hdr *header, uint64_t response);
/* Both at once, for an event without more. */
void ucma_event_tell(struct ucma_id *id, enum ucma_event_kind kind, int status);
/* Fills the part about a message: its private data from `skip` on, queue pair and depths; of datagrams the way too. */
void ucma_event_fill(struct ucma_event *event, const struct cm_endpoint *endpoint, bool datagram, const struct mad *mad, size_t skip);
/* Takes out all events of an ID; what requests have made goes to `destroy`. */
void ucma_event_purge(struct ucma_id *id, void (*destroy)(struct ucma_id *id));
void ucma_event_purge_multicast(struct ucma_file *file, const struct ucma_multicast *multicast);
/* An ID, its events, and what requests in them have made, go to another file. */
void ucma_event_move(struct ucma_id *id, struct ucma_file *to);

/* ---- ucma_query.c ---- */

int ucma_query_route(const struct ucma_id *id, struct rdma_ucm_query_route_resp *out);
int ucma_query_address(const struct ucma_id *id, struct rdma_ucm_query_addr_resp *out);
int ucma_query_gid(const struct ucma_id *id, struct rdma_ucm_query_addr_resp *out);
/* Of struct ib_path_rec_data. */
enum {
	/* Where a path record has what: IBTA vol 1, table 202. */
	RECORD_AT_PEER = 8,
	RECORD_AT_OWN = 24,
	RECORD_AT_HOPS = 47,
	RECORD_AT_CLASS = 48,
	RECORD_AT_MTU = 54,
	RECORD_AT_LIFETIME = 56,
	RECORD_BYTES = 64,
	RECORD_VALUE_BITS = 0x3f, /* beside a selector */
	RECORD_ONLY_PATH = IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL,
};
_Static_assert(sizeof ((struct ib_path_rec_data *)0)->path_rec == RECORD_BYTES, "a path record");
/* struct rdma_ucm_query_path_resp with one path. */
struct ucma_paths {
	uint32_t num_paths;
	uint32_t reserved;
	struct ib_path_rec_data path;
};
_Static_assert(offsetof(struct ucma_paths, path) == offsetof(struct rdma_ucm_query_path_resp, path_data), "the kernel's layout");
int ucma_query_path(const struct ucma_id *id, struct ucma_paths *out);
void ucma_fill_ah(const struct cm_endpoint *endpoint, struct ib_uverbs_ah_attr *out);
/* -EINVAL: not in this state. */
int ucma_qp_attr(const struct ucma_id *id, uint32_t state, struct ib_uverbs_qp_attr *out);

#endif
