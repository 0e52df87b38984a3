/* SPDX-License-Identifier: Apache-2.0 */
/* What a server that root has started gives up, for good. */
#ifndef CLI_PRIVILEGES_H
#define CLI_PRIVILEGES_H

struct settings;

/* From now on no program that is executed gains anything. Exit code. */
int privileges_freeze(void);
/* To the user and group of the settings, if there are any. Before there are threads. Exit code; the error was told. */
int privileges_drop(const struct settings *settings);

#endif
