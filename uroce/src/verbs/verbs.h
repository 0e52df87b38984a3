/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs that set the protocol in motion: contexts, queue pairs, posting, polling. Those of other objects are declared
 * with them: channel.h, cq.h, memory.h, window.h, recv_queue.h, ah.h. */
#ifndef UROCE_VERBS_H
#define UROCE_VERBS_H

#include "qp.h"

struct ibv_context *context_open(void); /* NULL and errno */
int context_close(struct ibv_context *context);
int context_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			    struct ibv_device_attr_ex *attr, size_t size);
int context_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t size);

/* 0, or EINVAL with errno set: there is no such port or index. */
int context_query_gid(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry);

int cq_poll(struct ibv_cq *cq, int count, struct ibv_wc *wc);
int cq_req_notify(struct ibv_cq *cq, int solicited_only);
struct ibv_cq_ex *cq_create_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr);

struct ibv_qp *qp_create(struct ibv_pd *pd, struct ibv_qp_init_attr *attr);
struct ibv_qp *qp_create_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);
int qp_destroy(struct ibv_qp *qp);
int qp_modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
int qp_query(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init);
int qp_attach_multicast(struct ibv_qp *qp, const union ibv_gid *group);
int qp_detach_multicast(struct ibv_qp *qp, const union ibv_gid *group);
int qp_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int qp_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
int qp_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind);
void wr_init(struct qp *qp); /* sets the function pointers of ibv_qp_ex */

#endif
