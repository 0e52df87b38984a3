/* SPDX-License-Identifier: Apache-2.0 */
/* The peer's certificate, as a program gets at it. */
#include "probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Another client and server of the rig's: CERT without its end, "" for none, and the order of names, "" for the default. */
static void use_certificate(struct rig *rig, const char *cert, const char *order)
{
	char ca[512], cert_file[512], key_file[512], server_cert[512], server_key[512];
	struct srdma_tls_client_options client;
	struct srdma_tls_server_options server;

	snprintf(ca, sizeof ca, "%s/ca.crt", rig->folder);
	snprintf(cert_file, sizeof cert_file, "%s.crt", cert);
	snprintf(key_file, sizeof key_file, "%s.key", cert);
	snprintf(server_cert, sizeof server_cert, "%s/server.crt", rig->folder);
	snprintf(server_key, sizeof server_key, "%s/server.key", rig->folder);
	srdma_tls_client_options_init(&client);
	client.ca_file = ca;
	client.cert_file = cert[0] ? cert_file : NULL;
	client.key_file = cert[0] ? key_file : NULL;
	srdma_tls_server_options_init(&server);
	server.cert_file = server_cert;
	server.key_file = server_key;
	server.client_ca_file = ca;
	server.insecure_anonymous_clients = true;
	server.identity_from = order[0] ? order : NULL;
	srdma_tls_context_unref(&rig->client_tls);
	srdma_tls_context_unref(&rig->server_tls);
	EXPECT(srdma_tls_client_new(&client, &rig->client_tls), 0);
	EXPECT(srdma_tls_server_new(&server, &rig->server_tls), 0);
}

static void tell(struct rig *rig, const struct srdma_peer_cert *cert)
{
	char *hex = malloc(2 * cert->der_length + 1);
	json_t *names = json_array();

	for (size_t i = 0; i < cert->der_length; i++)
		snprintf(hex + 2 * i, 3, "%02x", cert->der[i]);
	fact_text(rig, "der", hex);
	free(hex);
	fact_text(rig, "identity", cert->identity);
	fact_text(rig, "pin", cert->info->pin);
	fact_text(rig, "subject", cert->info->subject);
	for (size_t i = 0; i < cert->name_count; i++)
		json_array_append_new(names, json_pack("[s, s, b]", srdma_name_kind_name(cert->names[i]->kind), cert->names[i]->text,
						       (int)cert->names[i]->whole));
	json_object_set_new(rig->facts, "names", names);
}

/* Both ends; the copies outlive the connection. */
void mode_peer_cert(struct rig *rig, char **args)
{
	struct srdma_peer_cert *of_client = NULL, *of_server = NULL;
	struct srdma_conn *client, *server;
	struct srdma_conn_info info;

	use_certificate(rig, args[0], args[1]);
	rig_pair(rig, &client, &server);
	EXPECT(srdma_conn_peer_cert(client, &of_server), 0);
	srdma_conn_get_info(server, &info);
	fact_text(rig, "peer_name", info.peer_name);
	fact_text(rig, "peer_pin", info.peer_pin);
	fact_text(rig, "tls_group", info.tls_group);
	EXPECT(srdma_conn_peer_cert(server, &of_client), args[0][0] ? 0 : -ENOENT);
	CHECK(!of_client == !args[0][0]);
	srdma_conn_get_info(client, &info);
	CHECK(strcmp(of_server->identity, info.peer_name) == 0 && strcmp(of_server->info->pin, info.peer_pin) == 0);
	srdma_conn_free(&client);
	srdma_conn_free(&server);
	if (of_client)
		tell(rig, of_client);
	CHECK(of_server->der_length > 0 && of_server->name_count > 1);
	srdma_peer_cert_free(&of_client);
	srdma_peer_cert_free(&of_server);
	srdma_peer_cert_free(&of_server);
	CHECK(!of_client && !of_server);
}
