/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of libibverbs that a program has looked up, and what it does with them. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include <infiniband/verbs.h>

/* The version in which libibverbs has each. */
#define FUNCTIONS(X) \
	X(ibv_get_device_list, "IBVERBS_1.1") \
	X(ibv_free_device_list, "IBVERBS_1.1") \
	X(ibv_get_device_name, "IBVERBS_1.1") \
	X(ibv_open_device, "IBVERBS_1.1") \
	X(ibv_close_device, "IBVERBS_1.1") \
	X(ibv_get_async_event, "IBVERBS_1.1") \
	X(ibv_ack_async_event, "IBVERBS_1.1") \
	X(ibv_query_device, "IBVERBS_1.1") \
	X(ibv_query_gid, "IBVERBS_1.1") \
	X(ibv_alloc_pd, "IBVERBS_1.1") \
	X(ibv_dealloc_pd, "IBVERBS_1.1") \
	X(ibv_reg_mr_iova2, "IBVERBS_1.8") \
	X(ibv_reg_dmabuf_mr, "IBVERBS_1.12") \
	X(ibv_dereg_mr, "IBVERBS_1.1") \
	X(ibv_create_comp_channel, "IBVERBS_1.0") \
	X(ibv_destroy_comp_channel, "IBVERBS_1.0") \
	X(ibv_create_cq, "IBVERBS_1.1") \
	X(ibv_destroy_cq, "IBVERBS_1.1") \
	X(ibv_create_qp, "IBVERBS_1.1") \
	X(ibv_modify_qp, "IBVERBS_1.1") \
	X(ibv_query_qp, "IBVERBS_1.1") \
	X(ibv_query_ece, "IBVERBS_1.10") \
	X(ibv_destroy_qp, "IBVERBS_1.1") \
	X(ibv_fork_init, "IBVERBS_1.1") \
	X(ibv_wc_status_str, "IBVERBS_1.1") \
	X(ibv_event_type_str, "IBVERBS_1.1")

/* Macros of the header would rename them. */
#undef ibv_get_device_list

struct functions {
#define X(name, version) __typeof__(name) *name;
	FUNCTIONS(X)
#undef X
};

/* Exchanges messages with the other process over uroce0 and checks each; ends the process with a message if anything is wrong.
 * `host`: NULL for the server. */
void pingpong(const struct functions *verbs, const char *port, const char *host);

#endif
