/* SPDX-License-Identifier: Apache-2.0 */
/* A queue pair from state to state, with the starting PSNs of the two agents in place of the program's. */
#ifndef WRAP_MODIFY_H
#define WRAP_MODIFY_H

#include <infiniband/verbs.h>

/* As ibv_modify_qp, of which it is the wrapped form. EACCES: refused, and said why. */
int modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
int modify_destroy(struct ibv_qp *qp);

#endif
