/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "eventfd.h"
#include "log.h"
#include "thread.h"
#include "udp.h"
#include "wake.h"

enum {
	ROUND_PACKETS = 256,
	/* While the application polls. Each wake-up interrupts it; but when it stops polling, nobody answers its peers until
	 * the nap is over, and their shortest sensible retransmission timers must not run out meanwhile. */
	FIRST_NAP_NS = 1000000,
	LONGEST_NAP_NS = 4000000,
};

static void wait_for(struct progress *progress, int link_fd, uint64_t ns)
{
	struct pollfd fds[2] = {
		{ .fd = progress->wake_fd, .events = POLLIN },
		{ .fd = link_fd, .events = POLLIN },
	};
	struct timespec timeout = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	if (ppoll(fds, 2, ns == UINT64_MAX ? NULL : &timeout, NULL) <= 0 || fds[0].revents == 0)
		return;
	eventfd_wait(progress->wake_fd);
}

static void nap(struct progress *progress, uint64_t ns)
{
	atomic_store(&progress->napping, true);
	/* Armed just before it was seen that we nap: nobody would wake us. */
	if (!wake_armed_lately(progress))
		wait_for(progress, -1, ns);
	atomic_store(&progress->napping, false);
}

static bool application_polls(struct progress *progress, unsigned *seen)
{
	unsigned polls = atomic_load(&progress->polls);
	bool polled = polls != *seen && !wake_armed_lately(progress);
	*seen = polls;
	return polled;
}

__attribute__((noreturn)) static void *run(void *arg)
{
	struct device *device = arg;
	struct progress *progress = device->progress;
	unsigned seen = atomic_load(&progress->polls);
	uint64_t nap_ns = FIRST_NAP_NS;

	for (;;) {
		if (application_polls(progress, &seen)) {
			nap(progress, nap_ns);
			nap_ns = nap_ns * 2 < LONGEST_NAP_NS ? nap_ns * 2 : LONGEST_NAP_NS;
			continue;
		}
		nap_ns = FIRST_NAP_NS;
		engine_enter(device);
		unsigned received = engine_round(device, ROUND_PACKETS);
		bool more = device->active_head && link_ready(device->link);
		uint64_t next = timers_next(&device->timers);
		progress->wake_at = received > 0 || more ? 0 : next;
		uint64_t now = device->now;
		pthread_mutex_unlock(&device->lock);
		if (received == 0 && !more)
			wait_for(progress, udp_fd(device->udp), next == UINT64_MAX ? next : next > now ? next - now : 0);
	}
}

int progress_start(struct device *device)
{
	struct progress *progress = calloc(1, sizeof *progress);
	if (!progress)
		return -ENOMEM;
	progress->wake_fd = eventfd_open(EFD_NONBLOCK);
	if (progress->wake_fd < 0) {
		int error = errno;
		free(progress);
		return -error;
	}
	device->progress = progress;

	int error = thread_start(&progress->thread, run, device);
	if (error != 0) {
		log_write(LOG_ERROR, "cannot start the thread of the device: %s", strerror(error));
		device->progress = NULL;
		close(progress->wake_fd);
		free(progress);
		return -error;
	}
	pthread_setname_np(progress->thread, "uroce");
	return 0;
}

void progress_abandon(struct device *device)
{
	if (!device->progress)
		return;
	close(device->progress->wake_fd);
	device->progress = NULL; /* not freed: this must be async-signal-safe */
}
