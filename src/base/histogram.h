/* SPDX-License-Identifier: Apache-2.0 */
/* Times in fixed buckets. */
#ifndef SRDMA_HISTOGRAM_H
#define SRDMA_HISTOGRAM_H

#include "securdma.h"

void srdma_histogram_add(struct srdma_histogram *histogram, uint64_t us);

#endif
