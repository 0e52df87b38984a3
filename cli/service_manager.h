/* SPDX-License-Identifier: Apache-2.0 */
/* The service manager that started the server: systemd, or one that speaks its protocol. It may hold the listening sockets, and wants
 * to be told how the server is. Without one there are no sockets, and nobody is told. */
#ifndef CLI_SERVICE_MANAGER_H
#define CLI_SERVICE_MANAGER_H

#include "settings.h"

/* The sockets that it hands over; *fds is to be freed. Refuses those that the server cannot serve, and those that are not where the
 * settings say that the server listens; the error was told. Returns an exit code. */
int service_manager_sockets(const struct settings *settings, int **fds, unsigned *count);

/* Tells it something in the form of sd_notify(3), "READY=1\nSTATUS=listening". */
void service_manager_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Tells it that the server runs, if it wants to know. */
void service_manager_live(void);
/* How many milliseconds the server may sleep until it tells so again: `most`, or less. */
int service_manager_interval(int most);

#endif
