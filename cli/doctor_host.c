/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of the host and of what the settings name. Certificates and limits are judged by the library's own code, which `securdma serve`
 * and `securdma connect` ask as well. */
#include "doctor.h"
#include "serve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const enum finding findings[] = {
	[SRDMA_CHECK_OK] = FINDING_OK,
	[SRDMA_CHECK_WARN] = FINDING_WARN,
	[SRDMA_CHECK_FAIL] = FINDING_FAIL,
};

/* Of a check that looks at more than is asked: what to take, or to leave. */
struct taking {
	struct doctor *doctor;
	const char *only, *except; /* NULL: any, none */
};

static void take(const struct srdma_check *check, void *arg)
{
	const struct taking *taking = arg;

	if ((!taking->only || strcmp(check->what, taking->only) == 0) && (!taking->except || strcmp(check->what, taking->except) != 0))
		doctor_find(taking->doctor, findings[check->result], check->what, check->advice, "%s", check->text);
}

#define CHAIN "certificate chain"

static void check_server_credentials(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;
	bool has_both = settings->cert_file && settings->client_tls.ca_file;
	struct taking taking = {.doctor = doctor, .except = has_both ? CHAIN : NULL}, chain = {.doctor = doctor, .only = CHAIN};
	struct srdma_tls_server_options options;

	settings_server_tls(settings, &options);
	srdma_tls_server_check(&options, take, &taking);
	/* What its clients trust is known: then so is whether they can verify it. */
	if (has_both)
		srdma_cert_check(SRDMA_CERT_SERVER, settings->cert_file, NULL, settings->client_tls.ca_file, take, &chain);
}

static void check_client_credentials(struct doctor *doctor, bool has_own)
{
	struct taking taking = {.doctor = doctor};
	struct srdma_tls_client_options options;

	settings_client_tls(doctor->settings, &options);
	if (!has_own)
		options.cert_file = options.key_file = NULL;
	srdma_tls_client_check(&options, take, &taking);
}

/* Only the certificate itself says whether it is a server's or a client's. */
static void check_pair(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;
	struct taking taking = {.doctor = doctor};
	struct srdma_cert_info info;
	bool client = settings->cert_file && srdma_cert_read(settings->cert_file, &info) == 0 && info.client_auth && !info.server_auth;

	if (settings->cert_file)
		srdma_cert_check(client ? SRDMA_CERT_CLIENT : SRDMA_CERT_SERVER, settings->cert_file, settings->key_file, NULL, take, &taking);
	if (!settings->cert_file != !settings->key_file)
		doctor_find(doctor, FINDING_FAIL, "certificates", "give both --cert and --key", "%s is missing",
			    settings->cert_file ? "--key" : "--cert");
}

void doctor_check_certificates(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;
	bool server = settings->server_tls.client_ca_file || settings->server_tls.insecure_anonymous_clients, client = settings->client_tls.ca_file || settings->client_tls.pin;

	if (server)
		check_server_credentials(doctor);
	if (client)
		check_client_credentials(doctor, !server);
	if (server || client)
		return;
	if (settings->cert_file || settings->key_file)
		check_pair(doctor);
	else
		doctor_find(doctor, FINDING_OK, "certificates", NULL, "nothing to check: none is given (--cert, --key, --ca, --client-ca)");
}

void doctor_check_limits(struct doctor *doctor)
{
	struct taking taking = {.doctor = doctor};
	struct server_options options;

	if (settings_server_options(doctor->settings, &options) == 0)
		srdma_server_check(&options.server, doctor->device, take, &taking);
}

static const char *port_advice(int error, const char *port, char *text, size_t size)
{
	switch (error) {
	case -EADDRINUSE:
		snprintf(text, size, "ss -ltnp 'sport = :%s'   (shows the program that uses it; --port chooses another port)", port);
		return text;
	case -EADDRNOTAVAIL: return "ip address   (shows the addresses of this machine, for --listen)";
	case -EACCES: return "--port 4433   (or any other above 1023)";
	default: return NULL;
	}
}

void doctor_check_port(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;
	struct srdma_listener *listener = NULL;
	char advice[128];
	int ret;

	ret = srdma_listener_listen(settings->server.address, settings->server.port, &listener);
	if (ret == 0) {
		doctor_find(doctor, FINDING_OK, "TLS port", NULL, "%s is free", settings->server.port);
		srdma_listener_free(&listener);
		return;
	}
	/* Where a server runs already, a port in use is as it should be. */
	doctor_find(doctor, ret == -EADDRINUSE ? FINDING_WARN : FINDING_FAIL, "TLS port",
		    port_advice(ret, settings->server.port, advice, sizeof advice), "%s", srdma_error_text());
}

void doctor_become_user(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;

	if (geteuid() != 0)
		doctor_find(doctor, FINDING_OK, "user", NULL, "not root");
	else if (!settings->user)
		doctor_find(doctor, FINDING_WARN, "user", "securdma serve --user NAME   (or 'user' in [server])",
			    "root: the server would stay root");
	else if (privileges_drop(settings) == CLI_EXIT_OK)
		doctor_find(doctor, FINDING_OK, "user", NULL, "root, but the server switches to %s; the checks below ran as %s", settings->user,
			    settings->user);
	else
		doctor_find(doctor, FINDING_FAIL, "user", "name a user of this machine (getent passwd)", "the server cannot switch to user %s",
			    settings->user);
}

void doctor_check_random(struct doctor *doctor)
{
	unsigned char byte;
	uint32_t psn;

	if (getrandom(&byte, 1, GRND_NONBLOCK) != 1)
		doctor_find(doctor, FINDING_FAIL, "random",
			    "systemctl start haveged   (or wait until the kernel has gathered enough)",
			    "the kernel's random generator is not ready: %s", strerror(errno));
	else if (srdma_psn_generate(&psn) < 0)
		doctor_find(doctor, FINDING_FAIL, "random", "check OpenSSL's configuration (openssl rand -hex 3)", "%s",
			    srdma_error_text());
	else
		doctor_find(doctor, FINDING_OK, "random", NULL, "the random generator for PSNs works");
}
