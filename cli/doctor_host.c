/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of the host and of the files that the settings name. */
#include "doctor.h"
#include "expiry.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <time.h>

#define CAP_IPC_LOCK_BIT 14

/* The kernel does not count locked memory of a process with CAP_IPC_LOCK. */
static bool may_lock_all(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	unsigned long long capabilities = 0;
	char line[256];

	if (!status)
		return false;
	while (fgets(line, sizeof line, status))
		if (sscanf(line, "CapEff: %llx", &capabilities) == 1)
			break;
	fclose(status);
	return capabilities >> CAP_IPC_LOCK_BIT & 1;
}

void doctor_check_memlock(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;
	/* Rings of both directions and the region; another page for each of the four allocations. */
	unsigned long long client =
		(unsigned long long)(2 * settings->depth * settings->message_size + settings->region_size + 4 * 4096);
	unsigned long long need = client * (unsigned long long)settings->max_clients;
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return;
	if (limit.rlim_cur == RLIM_INFINITY || may_lock_all())
		doctor_find(doctor, FINDING_OK, "locked memory", NULL, "unlimited; %lld clients need %llu KiB",
			    (long long)settings->max_clients, need / 1024);
	else
		doctor_find(doctor,
			    limit.rlim_cur >= need     ? FINDING_OK
			    : limit.rlim_cur >= client ? FINDING_WARN
						       : FINDING_FAIL,
			    "locked memory",
			    limit.rlim_cur >= need
				    ? NULL
				    : "ulimit -l unlimited   (for good: '* - memlock unlimited' in "
				      "/etc/security/limits.d/rdma.conf, LimitMEMLOCK=infinity in a service)",
			    "the limit is %llu KiB; a connection needs %llu KiB, %lld clients need %llu KiB",
			    (unsigned long long)limit.rlim_cur / 1024, client / 1024, (long long)settings->max_clients,
			    need / 1024);
}

static void check_validity(struct doctor *doctor, const char *what, const char *file)
{
	struct srdma_cert_info info;
	char day[32], name[4 * sizeof info.common_name];
	int64_t days;

	if (srdma_cert_read(file, &info) < 0) {
		doctor_find(doctor, FINDING_FAIL, what, "securdma cert --help   (it makes certificates)", "%s",
			    srdma_error_text());
		return;
	}
	days = expiry_days(info.not_after);
	expiry_format(info.not_after, day, sizeof day);
	cli_escape(info.common_name, strlen(info.common_name), name, sizeof name);
	if (days < 0)
		doctor_find(doctor, FINDING_FAIL, what, "securdma cert --help   (it makes certificates)",
			    "%s (%s) expired on %s", file, name, day);
	else
		doctor_find(doctor, days < EXPIRY_WARN_DAYS ? FINDING_WARN : FINDING_OK, what,
			    days < EXPIRY_WARN_DAYS ? "securdma cert --help   (it makes certificates)" : NULL,
			    "%s (%s) is valid until %s, %lld days", file, name, day, (long long)days);
	if (info.not_before > (int64_t)time(NULL))
		doctor_find(doctor, FINDING_FAIL, what, "check the clock of this machine", "%s is not valid yet", file);
}

/* An encrypted key must not make the program ask on the terminal. */
static int no_password(char *buffer, int size, int writing, void *arg)
{
	(void)buffer, (void)size, (void)writing, (void)arg;
	return 0;
}

static void check_pair(struct doctor *doctor, const char *cert_file, const char *key_file)
{
	FILE *cert_stream = fopen(cert_file, "re"), *key_stream = fopen(key_file, "re");
	X509 *cert = cert_stream ? PEM_read_X509(cert_stream, NULL, no_password, NULL) : NULL;
	EVP_PKEY *key = key_stream ? PEM_read_PrivateKey(key_stream, NULL, no_password, NULL) : NULL;

	if (!key_stream)
		doctor_find(doctor, FINDING_FAIL, "key", "securdma cert --help   (it makes keys)", "%s: %s", key_file,
			    strerror(errno));
	else if (!key)
		doctor_find(doctor, FINDING_FAIL, "key", "securdma cert --help   (it makes keys)",
			    "%s is no private key in PEM, or it is encrypted", key_file);
	else if (cert && X509_check_private_key(cert, key) != 1)
		doctor_find(doctor, FINDING_FAIL, "key", "give the key that was made with the certificate",
			    "%s is not the key of %s", key_file, cert_file);
	else if (cert)
		doctor_find(doctor, FINDING_OK, "key", NULL, "%s is the key of %s", key_file, cert_file);
	EVP_PKEY_free(key);
	X509_free(cert);
	if (key_stream)
		fclose(key_stream);
	if (cert_stream)
		fclose(cert_stream);
}

static void check_key_mode(struct doctor *doctor, const char *key_file)
{
	struct stat status;
	char mend[512];

	if (stat(key_file, &status) < 0)
		return;
	snprintf(mend, sizeof mend, "chmod 0600 %s", key_file);
	if (status.st_mode & 077)
		doctor_find(doctor, status.st_mode & 07 ? FINDING_FAIL : FINDING_WARN, "key file", mend,
			    "%s has mode %04o: others can get at the key", key_file, status.st_mode & 07777);
	else
		doctor_find(doctor, FINDING_OK, "key file", NULL, "%s has mode %04o", key_file, status.st_mode & 07777);
}

void doctor_check_certificates(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;

	if (settings->ca_file)
		check_validity(doctor, "CA", settings->ca_file);
	if (settings->client_ca_file)
		check_validity(doctor, "client CA", settings->client_ca_file);
	if (settings->cert_file)
		check_validity(doctor, "certificate", settings->cert_file);
	if (settings->cert_file && settings->key_file)
		check_pair(doctor, settings->cert_file, settings->key_file);
	if (settings->key_file)
		check_key_mode(doctor, settings->key_file);
	if (!settings->ca_file && !settings->client_ca_file && !settings->cert_file)
		doctor_find(doctor, FINDING_OK, "certificates", NULL,
			    "none given, none checked (--cert, --key, --ca, --client-ca)");
	else if (!settings->cert_file != !settings->key_file)
		doctor_find(doctor, FINDING_FAIL, "certificates", "give both --cert and --key", "%s is missing",
			    settings->cert_file ? "--key" : "--cert");
}

void doctor_check_port(struct doctor *doctor)
{
	const struct settings *settings = doctor->settings;
	struct srdma_listener *listener = NULL;
	char mend[96];
	int ret;

	ret = srdma_listener_new(settings->listen_address, settings->listen_port, &listener);
	if (ret == 0) {
		doctor_find(doctor, FINDING_OK, "TLS port", NULL, "%s is free", settings->listen_port);
		srdma_listener_delete(&listener);
		return;
	}
	/* Where a server runs already, a port in use is as it should be. */
	snprintf(mend, sizeof mend, "ss -ltnp 'sport = :%s'   (shows who has it; --port takes another)",
		 settings->listen_port);
	doctor_find(doctor, ret == -EADDRINUSE ? FINDING_WARN : FINDING_FAIL, "TLS port", mend, "%s",
		    srdma_error_text());
}

void doctor_check_user(struct doctor *doctor)
{
	if (geteuid() != 0)
		doctor_find(doctor, FINDING_OK, "user", NULL, "not root");
	else if (doctor->settings->user)
		doctor_find(doctor, FINDING_OK, "user", NULL, "root, and a server becomes %s", doctor->settings->user);
	else
		doctor_find(doctor, FINDING_WARN, "user", "securdma serve --user NAME   (or 'user' in [server])",
			    "root: a server started now stays root");
}

void doctor_check_random(struct doctor *doctor)
{
	unsigned char byte;
	uint32_t psn;

	if (getrandom(&byte, 1, GRND_NONBLOCK) != 1)
		doctor_find(doctor, FINDING_FAIL, "random",
			    "systemctl start haveged   (or wait until the kernel has gathered enough)",
			    "the kernel's generator is not ready: %s", strerror(errno));
	else if (srdma_psn_generate(&psn) < 0)
		doctor_find(doctor, FINDING_FAIL, "random", "check OpenSSL's configuration (openssl rand -hex 3)", "%s",
			    srdma_error_text());
	else
		doctor_find(doctor, FINDING_OK, "random", NULL, "the generator of PSNs works");
}
