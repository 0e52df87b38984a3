/* SPDX-License-Identifier: Apache-2.0 */
/* Functions of librdmacm and libmlx5 that connect queue pairs past ibv_modify_qp. This library is not linked with either, and knows of their
 * types only what the calls need. */
#include "link.h"
#include "next.h"
#include "refuse.h"
#include "setting.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

#define CM "librdmacm.so.1"
#define MLX5 "libmlx5.so.1"

/* Under enforce EACCES; else 0. */
static int refuse_other(const char *kind, const char *what, const char *why)
{
	struct report_record record = {.kind = REPORT_REFUSED};

	link_reach();
	return refuse(&record, kind, false, what, why);
}

#define CM_PROBLEM "rdma_cm tells the peer and the PSNs in clear, past the agent; let the program connect by TCP (its option for rdma_cm off)"

/* Names only what helps: where one of the two enforces, the other's word does not. */
static int refuse_cm(const char *what)
{
	link_reach();
	if (link_observes())
		return refuse_other("rdma_cm", what, CM_PROBLEM);
	return refuse_other("rdma_cm", what, setting()->observe ? CM_PROBLEM ", or let the agent observe (its option --mode)" : CM_PROBLEM ", or wrap it with --observe");
}

/* Calls the library's own function. */
#define PASS(function, library, ...) \
	__typeof__(&function) next_ = (__typeof__(&function))next_of(library, #function); \
	if (next_) \
		return next_(__VA_ARGS__); \
	errno = ENOSYS; \
	return -1

int rdma_create_id(void *channel, void **id, void *context, int port_space);
EXPORT int rdma_create_id(void *channel, void **id, void *context, int port_space)
{
	if (refuse_cm("open a connection of rdma_cm (rdma_create_id)") != 0)
		return -1;
	PASS(rdma_create_id, CM, channel, id, context, port_space);
}

int rdma_create_ep(void **id, void *info, void *pd, void *attr);
EXPORT int rdma_create_ep(void **id, void *info, void *pd, void *attr)
{
	if (refuse_cm("open an endpoint of rdma_cm (rdma_create_ep)") != 0)
		return -1;
	PASS(rdma_create_ep, CM, id, info, pd, attr);
}

int rsocket(int domain, int type, int protocol);
EXPORT int rsocket(int domain, int type, int protocol)
{
	if (refuse_cm("open a socket of rdma_cm (rsocket)") != 0)
		return -1;
	PASS(rsocket, CM, domain, type, protocol);
}

/* ---- queue pairs by commands of the adapter ---- */

/* The command's number begins each: PRM of ConnectX. Those that make a queue pair, or take one on. */
static int makes_queue_pair(const void *in, size_t length)
{
	const uint8_t *bytes = in;
	unsigned code = length >= 2 ? (unsigned)bytes[0] << 8 | bytes[1] : 0;

	return code == 0x500                      /* CREATE_QP */
	       || (code >= 0x502 && code <= 0x506) /* to INIT, RTR, RTS, and again */
	       || code == 0x50e                    /* INIT to INIT */
	       || code == 0x710                    /* CREATE_DCT */
	       || code == 0x717;                   /* CREATE_XRQ */
}

static int refuse_command(const char *function, const void *in, size_t length)
{
	char what[96] = "make or connect a queue pair by a command of the adapter (";

	if (!makes_queue_pair(in, length))
		return 0;
	strcat(what, function);
	strcat(what, ")");
	return refuse_other("devx", what, "the agent does not see its peer; switch DEVX off in the program (UCX: UCX_IB_MLX5_DEVX=no)");
}

void *mlx5dv_devx_obj_create(void *context, const void *in, size_t in_length, void *out, size_t out_length);
EXPORT void *mlx5dv_devx_obj_create(void *context, const void *in, size_t in_length, void *out, size_t out_length)
{
	__typeof__(&mlx5dv_devx_obj_create) next;

	if (refuse_command("mlx5dv_devx_obj_create", in, in_length) != 0)
		return NULL;
	next = (__typeof__(next))next_of(MLX5, "mlx5dv_devx_obj_create");
	if (next)
		return next(context, in, in_length, out, out_length);
	errno = ENOSYS;
	return NULL;
}

/* Those that return an error's number. */
#define COMMAND(function) \
	int function(void *object, const void *in, size_t in_length, void *out, size_t out_length); \
	EXPORT int function(void *object, const void *in, size_t in_length, void *out, size_t out_length) \
	{ \
		int (*next)(void *, const void *, size_t, void *, size_t) = (__typeof__(next))next_of(MLX5, #function); \
		int error = refuse_command(#function, in, in_length); \
		if (error != 0) \
			return error; \
		return next ? next(object, in, in_length, out, out_length) : ENOSYS; \
	}
COMMAND(mlx5dv_devx_obj_modify)
COMMAND(mlx5dv_devx_qp_modify)
COMMAND(mlx5dv_devx_general_cmd)
