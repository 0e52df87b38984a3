/* SPDX-License-Identifier: Apache-2.0 */
/* SIGINT and SIGTERM, for a command that ends in order and says so. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

/* From now on the first of them is only noted; the second one ends the process. */
void interrupt_catch(void);
/* Which one has come; 0: none. */
int interrupt_signal(void);

#endif
