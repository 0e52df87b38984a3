/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct config config;
static bool complete;

/* A copy: the application may change its environment at any time. */
static bool take_variable(const char *name, const char **out)
{
	const char *value = secure_getenv(name);
	if (!value || *value == '\0')
		return true;
	*out = strdup(value);
	return *out;
}

/* "0" is off, as if it were not set. */
static bool take_switch(const char *name, const char **out)
{
	const char *value = secure_getenv(name);
	return (value && strcmp(value, "0") == 0) || take_variable(name, out);
}

static void read_environment(void)
{
	complete = take_variable("UROCE_ADDR", &config.addresses) && take_variable("UROCE_CAPTURE", &config.capture) &&
		   take_variable("UROCE_FAULT", &config.fault) && take_switch("UROCE_WIRE", &config.wire) &&
		   take_switch("UROCE_GO_BACK", &config.go_back);
	if (!complete)
		log_write(LOG_ERROR, "out of memory for the configuration");
}

const struct config *config_get(void)
{
	int saved = errno;
	pthread_once(&once, read_environment);
	errno = saved;
	return complete ? &config : NULL;
}
