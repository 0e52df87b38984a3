/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs.h of rdma-core 44 does not have, with names of our own: a program that was compiled with a newer one uses it. */
#ifndef UROCE_NEWER_H
#define UROCE_NEWER_H

#include <stddef.h>
#include <stdint.h>

/* The extension for memory placement, IBTA vol 1 annex A19: FLUSH and ATOMIC WRITE. */
enum { WR_FLUSH = 14, WR_ATOMIC_WRITE = 15 }; /* enum ibv_wr_opcode */
enum { WC_FLUSH = 8, WC_ATOMIC_WRITE = 9 };   /* enum ibv_wc_opcode */
enum { ACCESS_FLUSH_GLOBAL = 1 << 8, ACCESS_FLUSH_PERSISTENT = 1 << 9 }; /* enum ibv_access_flags */
enum { OPS_FLUSH = 1 << 11, OPS_ATOMIC_WRITE = 1 << 12 }; /* enum ibv_qp_create_send_ops_flags */
enum { FLUSH_GLOBAL = 1 << 0, FLUSH_PERSISTENT = 1 << 1 }; /* enum ibv_placement_type */
enum { FLUSH_RANGE = 0, FLUSH_REGION = 1 }; /* enum ibv_selectivity_level */

enum { ODP_FLUSH = 1 << 6, ODP_ATOMIC_WRITE = 1 << 7 }; /* enum ibv_odp_transport_cap_bits */

/* Of device_cap_flags_ex. */
#define DEVICE_FLUSH_GLOBAL (UINT64_C(1) << 38)
#define DEVICE_ATOMIC_WRITE (UINT64_C(1) << 40)

struct ibv_qp_ex;
typedef void wr_flush_function(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote, size_t length, uint8_t type, uint8_t level);

#endif
