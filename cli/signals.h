/* SPDX-License-Identifier: Apache-2.0 */
/* The signals of a program that serves: SIGINT and SIGTERM stop it, SIGHUP has it read its configuration again, SIGUSR1 has it show
 * its status. */
#ifndef CLI_SIGNALS_H
#define CLI_SIGNALS_H

/* Blocks them in this thread, and so in those that are started later. A descriptor that signals_take reads; below 0: errno says why. */
int signals_open(void);
/* The next one; 0: there is none. */
int signals_take(int fd);

#endif
