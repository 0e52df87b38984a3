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
	UCMA_BACKLOG = 1024,
	UCMA_HOPS = 64,
	UCMA_UDP_QKEY = 0x01234567, /* RDMA_UDP_QKEY of rdma_cma.h */
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
};

struct ucma_id;

struct ucma_event {
	struct ucma_event *next;
	struct ucma_id *id;   /* whose it is: of a request, the listener */
	struct ucma_id *made; /* by a request; NULL otherwise */
	struct rdma_ucm_event_resp resp;
};

/* One opening of the character device: an event channel. */
struct ucma_file {
	struct device *device;
	struct ucma *ucma;
	int fd;        /* the program's: readable while there are events */
	int drain_fd;  /* the same end of the pipe, for us */
	int signal_fd; /* the other end */
	unsigned users; /* the descriptor, and calls under way; guarded by ucma.c's lock and not the device's */
	uint64_t inode;   /* of the pipe: a descriptor of that number may be another file by now */
	struct ucma_event *first;
	struct ucma_event **last;
	unsigned events;
	unsigned waiting; /* threads, for `woken` */
	sem_t woken;
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
	bool one_family;     /* :: is IPv6 alone */
	/* Of a listener. */
	unsigned backlog; /* requests that it may still hold */
	/* Of one that a request made. */
	struct ucma_id *listener; /* NULL: accepted, or the listener has gone */
};

struct ucma {
	struct device *device;
	struct cm *cm;
	struct ucma_id **ids; /* by handle */
	uint32_t room;
	uint32_t lowest; /* no handle below it is free */
	struct ucma *left; /* the parent's, for leak checkers */
};

/* ---- ucma.c ---- */

/* The file of a descriptor, with one more user; NULL: it is none of ours. */
struct ucma_file *ucma_hold(int fd);
void ucma_release(struct ucma_file *file);

/* ---- ucma_id.c ---- */

/* What the connection manager calls. */
extern const struct cm_user ucma_user;
/* NULL: this file has none of that number. */
struct ucma_id *ucma_id_find(struct ucma_file *file, uint32_t handle);
int ucma_id_new(struct ucma_file *file, uint64_t uid, uint16_t port_space, uint8_t qp_type, struct ucma_id **out);
void ucma_id_destroy(struct ucma_id *id);
/* A request is settled: its listener has room for another. */
void ucma_id_leave_listener(struct ucma_id *id);

static inline bool ucma_id_is_datagram(const struct ucma_id *id)
{
	return id->qp_type == IBV_QPT_UD;
}

/* ---- ucma_command.c ---- */

/* Runs any but GET_EVENT: 0 or a negative errno. `other`: the file that MIGRATE_ID names, or NULL. `cmd`: its structure, with zeros
 * behind `length` bytes. */
int ucma_command(struct ucma_file *file, struct ucma_file *other, const struct rdma_ucm_cmd_hdr *header, const void *cmd, size_t length);
/* Puts an answer where the program has given room for it: as much as there is room for. */
void ucma_respond(const struct rdma_ucm_cmd_hdr *header, uint64_t address, const void *answer, size_t length);

/* ---- ucma_address.c ---- */

/* Bytes of an address of a family that is known here; 0: another. */
size_t ucma_address_size(const struct sockaddr_storage *address);
bool ucma_address_is_any(const struct sockaddr_storage *address);
uint16_t ucma_address_port(const struct sockaddr_storage *address);
void ucma_address_set_port(struct sockaddr_storage *address, uint16_t port);
void ucma_address_to_gid(const struct sockaddr_storage *address, union ibv_gid *out);
void ucma_address_from_gid(const union ibv_gid *gid, uint16_t port, struct sockaddr_storage *out);
/* The device's GID for an address of this host; -ENODEV: it has none. */
int ucma_find_own(const struct device *device, const struct sockaddr_storage *address, unsigned *index);
/* The way to a destination, from `source` or (any, or no family) from what the routing table says, which it is set to. Negative: an
 * errno. */
int ucma_find_path(const struct device *device, struct sockaddr_storage *source, const struct sockaddr_storage *destination,
		   struct gsi_path *out);

/* ---- ucma_event.c ---- */

/* An event with this status, for the ID's file. NULL: no memory, or too many; logged. */
struct ucma_event *ucma_event_new(struct ucma_id *id, enum ucma_event_kind kind, int status);
void ucma_event_queue(struct ucma_event *event);
/* The oldest, which the caller frees; NULL: there is none. */
struct ucma_event *ucma_event_take(struct ucma_file *file);
/* Both at once, for an event without more. */
void ucma_event_tell(struct ucma_id *id, enum ucma_event_kind kind, int status);
/* Fills the part about a message: its private data from `skip` on, queue pair and depths; of datagrams the way too. */
void ucma_event_fill(struct ucma_event *event, const struct cm_endpoint *endpoint, bool datagram, const struct mad *mad, size_t skip);
/* Takes out all events of an ID; what requests have made goes to `destroy`. */
void ucma_event_purge(struct ucma_id *id, void (*destroy)(struct ucma_id *id));
/* An ID, its events, and what requests in them have made, go to another file. */
void ucma_event_move(struct ucma_id *id, struct ucma_file *to);

/* ---- ucma_query.c ---- */

int ucma_query_route(const struct ucma_id *id, struct rdma_ucm_query_route_resp *out);
int ucma_query_address(const struct ucma_id *id, struct rdma_ucm_query_addr_resp *out);
int ucma_query_gid(const struct ucma_id *id, struct rdma_ucm_query_addr_resp *out);
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
