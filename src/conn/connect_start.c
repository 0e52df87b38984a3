/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting without waiting: a thread of its own goes through srdma_conn_connect, and the caller may abandon it. */
#include "clock.h"
#include "conn.h"
#include "log.h"
#include "setup.h"
#include "thread.h"
#include "wake.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct srdma_connect {
	char *host, *port, *networks;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct srdma_conn_settings settings;
	int ended_fd; /* wake.h */

	pthread_mutex_t mutex; /* guards the members below */
	bool ended, abandoned;
	int result;
	char text[512];
	struct srdma_reject reject;
	struct srdma_conn *conn; /* NULL: none, or it was taken */
};

static void delete(struct srdma_connect *connect)
{
	srdma_conn_free(&connect->conn);
	srdma_tls_context_unref(&connect->context);
	srdma_device_unref(&connect->device);
	srdma_wake_close(connect->ended_fd);
	pthread_mutex_destroy(&connect->mutex);
	free(connect->host);
	free(connect->port);
	free(connect->networks);
	free(connect);
}

static void *run(void *arg)
{
	struct srdma_connect *connect = arg;
	struct srdma_reject reject;
	struct srdma_conn *conn = NULL;
	bool abandoned;
	char text[sizeof connect->text];
	int result = srdma_conn_connect(connect->host, connect->port, connect->context, connect->device, &connect->settings.options, &conn);

	srdma_error_keep(text, sizeof text);
	srdma_reject_last(&reject);
	pthread_mutex_lock(&connect->mutex);
	connect->result = result;
	memcpy(connect->text, text, sizeof text);
	connect->reject = reject;
	connect->conn = conn;
	connect->ended = true;
	abandoned = connect->abandoned;
	/* Under the lock, because the caller may free everything as soon as it has the lock. */
	if (!abandoned)
		srdma_wake_send(connect->ended_fd);
	pthread_mutex_unlock(&connect->mutex);
	if (abandoned)
		delete(connect);
	return NULL;
}

static int start_thread(struct srdma_connect *connect)
{
	int error = srdma_thread_start(run, connect, 0, NULL);

	return error == 0 ? 0 : srdma_fail(-error, "cannot start a thread to connect: %s", strerror(error));
}

static int copy(const char *text, char **out)
{
	*out = text ? strdup(text) : NULL;
	return *out || !text ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

int srdma_conn_connect_start(const char *host, const char *port, struct srdma_tls_context *context, struct srdma_device *device,
			     const struct srdma_conn_options *options, struct srdma_connect **out)
{
	struct srdma_connect *connect = calloc(1, sizeof *connect);
	int ret;

	if (!connect)
		return srdma_fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&connect->mutex, NULL);
	connect->context = srdma_tls_context_ref(context);
	connect->device = srdma_device_ref(device);
	connect->ended_fd = srdma_wake_new();
	ret = connect->ended_fd < 0 ? srdma_fail(-errno, "cannot make a descriptor to wait on: %s", strerror(errno))
				    : srdma_conn_settings_take(options, &connect->settings);
	if (ret == 0)
		ret = srdma_conn_options_check(&connect->settings.options);
	if (ret == 0)
		ret = copy(host, &connect->host);
	if (ret == 0)
		ret = copy(port, &connect->port);
	if (ret == 0)
		ret = copy(connect->settings.options.gid_networks, &connect->networks);
	connect->settings.options.gid_networks = connect->networks;
	if (ret == 0)
		ret = start_thread(connect);
	if (ret != 0) {
		delete(connect);
		return ret;
	}
	*out = connect;
	return 0;
}

int srdma_connect_fd(const struct srdma_connect *connect)
{
	return connect->ended_fd;
}

int srdma_connect_step(struct srdma_connect *connect, struct srdma_conn **out)
{
	struct srdma_conn *conn = NULL;
	bool ended;

	pthread_mutex_lock(&connect->mutex);
	ended = connect->ended;
	if (ended) {
		conn = connect->conn;
		connect->conn = NULL;
	}
	pthread_mutex_unlock(&connect->mutex);
	if (!ended)
		return srdma_again("the connection to come up");
	if (connect->result != 0) {
		srdma_reject_note(&connect->reject);
		return srdma_fail(connect->result, "%s", connect->text);
	}
	if (!conn)
		return srdma_fail(-EINVAL, "an earlier call has returned the connection");
	*out = conn;
	return 0;
}

void srdma_connect_free(struct srdma_connect **out)
{
	struct srdma_connect *connect = *out;
	bool ended;

	*out = NULL;
	if (!connect)
		return;
	pthread_mutex_lock(&connect->mutex);
	ended = connect->ended;
	connect->abandoned = true;
	pthread_mutex_unlock(&connect->mutex);
	if (ended)
		delete(connect);
}
