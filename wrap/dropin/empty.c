/* SPDX-License-Identifier: Apache-2.0 */
/* A library without functions: what matters is what it needs and which versions it has. */
