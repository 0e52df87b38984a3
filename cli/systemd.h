/* SPDX-License-Identifier: Apache-2.0 */
/* libsystemd's calls. A build without it answers -ENOTSUP where the service manager expects to be told, or hands over a socket:
 * a failure must not pass in silence. */
#ifndef CLI_SYSTEMD_H
#define CLI_SYSTEMD_H

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#else

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define SD_LISTEN_FDS_START 3

static inline int sd_notify(int unset_environment, const char *state)
{
	(void)unset_environment;
	(void)state;
	return getenv("NOTIFY_SOCKET") ? -ENOTSUP : 0;
}

static inline int sd_watchdog_enabled(int unset_environment, uint64_t *usec)
{
	(void)unset_environment;
	(void)usec;
	return 0;
}

static inline int sd_listen_fds(int unset_environment)
{
	const char *pid = getenv("LISTEN_PID");

	(void)unset_environment;
	return pid && atol(pid) == (long)getpid() ? -ENOTSUP : 0;
}

#endif

#endif
