/* SPDX-License-Identifier: Apache-2.0 */
/* A running `securdma serve`. */
#ifndef CLI_SERVE_H
#define CLI_SERVE_H

#include "control_server.h"
#include "metrics.h"
#include "serve_files.h"
#include "tunnel_server.h"
#include "settings.h"

struct serve {
	struct settings settings;
	struct srdma_device *device;
	struct srdma_tls_context *context;
	struct srdma_server *server;
	struct metrics *metrics; /* NULL: none */
	struct services services;
	struct serve_files *files; /* NULL: nobody copies */
	struct tunnel_server *tunnels; /* NULL: there are no targets */
	struct control_server *control;
	int signals;
	int *sockets; /* handed over by the service manager; NULL: the server made its own */
	unsigned socket_count;
	int argc; /* for a reload, which reads the flags again */
	char **argv;
	bool reload_wanted; /* a SIGHUP came before there was a server */
	bool reload_failed; /* the last reload failed: settings and files differ from those in force */
	bool cleared;       /* drained, and the clients that were left at the deadline have been told */
	char state[256];    /* as the service manager was told */
};

/* announce.c: on standard output, or, where that is the journal, as events of the log. */
void announce_listening(const struct serve *serve);
void announce_stopped(const struct serve *serve, const struct srdma_server_status *status, int unfinished, bool device_failed);
/* Tells the service manager the server's state, when it has changed. */
void announce_state(struct serve *serve, const struct srdma_server_status *status);

/* privileges.c: what a server that root has started gives up, for good. Both return an exit code. */
/* From now on no program that is executed gains anything. */
int privileges_freeze(void);
/* Becomes the user and group of the settings, if there are any. Must run before there are threads. */
int privileges_drop(const struct settings *settings);

/* sandbox_connect.c: from now on this thread, and those that it starts, connect by TCP to the ports of the tunnels' targets alone. 0, also
 * where the kernel cannot limit that; or a negative errno. */
int sandbox_limit_connects(const struct settings *settings);
/* Whether that is so. */
bool sandbox_limits_connects(void);

/* sandbox_files.c: likewise, writes below the folders of [files] alone, and where the server itself must. */
int sandbox_limit_files(const struct settings *settings);

/* reload.c: puts `fresh`, the configuration that was read again, into force, and exchanges it with the server's settings. When something in it is
 * wrong, the function changes nothing and returns false. The flags of settings that need a new start are logged, and added to the
 * array `later`, unless that is NULL. */
bool reload(struct serve *serve, struct settings *fresh, json_t *later);

#endif
