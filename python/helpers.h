/* SPDX-License-Identifier: Apache-2.0 */
/* What must not run in Python: it is called with a lock of the library held, where the garbage collector of Python, which may free
 * other objects of the library at any time, could wait for that lock. Each function with a comment of two asterisks is Python's. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct securdma_copies {
	struct srdma_conn_info *infos;
	size_t count, room;
	int error;
};

static void securdma_copy_info(const struct srdma_conn_info *info, void *arg)
{
	struct securdma_copies *copies = arg;

	if (copies->count == copies->room && copies->error == 0) {
		size_t room = copies->room ? 2 * copies->room : 64;
		struct srdma_conn_info *grown = realloc(copies->infos, room * sizeof *grown);

		if (grown) {
			copies->infos = grown;
			copies->room = room;
		} else {
			copies->error = -ENOMEM;
		}
	}
	if (copies->error == 0)
		memcpy(&copies->infos[copies->count++], info, sizeof *info);
}

/** Copies what is known of each client. Free `*infos` with securdma_release(). */
static int securdma_server_clients(struct srdma_server *server, struct srdma_conn_info **infos, size_t *count)
{
	struct securdma_copies copies = {0};
	int ret = srdma_server_each(server, securdma_copy_info, &copies);

	ret = ret != 0 ? ret : copies.error;
	if (ret != 0) {
		free(copies.infos);
		return ret;
	}
	*infos = copies.infos;
	*count = copies.count;
	return 0;
}

/** Frees memory of these functions. */
static void securdma_release(void *memory)
{
	free(memory);
}

/** Writes an address as numbers: host, or host and port. Returns 0, or an error of getnameinfo(3). */
static int securdma_address_text(const struct sockaddr *address, char *host, size_t host_size, char *port, size_t port_size)
{
	socklen_t size = address->sa_family == AF_INET6 ? 28 : 16; /* of struct sockaddr_in6 and sockaddr_in */

	return getnameinfo(address, size, host, (socklen_t)host_size, port, (socklen_t)port_size, NI_NUMERICHOST | NI_NUMERICSERV);
}

/* Puts a text and its NUL at the end of a record, if they fit. */
static size_t securdma_put(char *record, size_t used, size_t room, const char *text)
{
	size_t size = strlen(text) + 1;

	if (used + size > room)
		return used;
	memcpy(record + used, text, size);
	return used + size;
}

/* A record of the log becomes a packet: level, whether it is of security, event, text; then name and value of each fact. What finds no
 * room in the socket is lost: nobody may wait for a reader of the log. */
static void securdma_send_record(const struct srdma_log_record *record, void *arg)
{
	char packet[16384], value[32];
	size_t used = 0;

	snprintf(value, sizeof value, "%d", (int)record->level);
	used = securdma_put(packet, used, sizeof packet, value);
	used = securdma_put(packet, used, sizeof packet, record->security ? "1" : "0");
	used = securdma_put(packet, used, sizeof packet, record->event);
	used = securdma_put(packet, used, sizeof packet, record->text);
	for (size_t i = 0; i < record->field_count; i++) {
		const struct srdma_log_field *field = record->fields[i];
		size_t with_name = securdma_put(packet, used, sizeof packet, field->name), with_value;

		snprintf(value, sizeof value, "%lld", (long long)field->number);
		with_value = securdma_put(packet, with_name, sizeof packet, field->text ? field->text : value);
		if (with_name == used || with_value == with_name)
			break;
		used = with_value;
	}
	send((int)(intptr_t)arg, packet, used, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/** Sends the log up to `level` to a socket of packets. */
static void securdma_log_to_socket(enum srdma_log_level level, int socket)
{
	srdma_log_set(level, securdma_send_record, (void *)(intptr_t)socket);
}
