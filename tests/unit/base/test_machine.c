/* SPDX-License-Identifier: Apache-2.0 */
/* Machines made of files. */
#include "test.h"

#include "folder.h"

#include "machine.h"

#define GIB (1ull << 30)

static int begin(void **state)
{
	if (enter_folder(state) != 0)
		return -1;
	write_text("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:          100000 kB\nMemAvailable:    8388608 kB\n");
	return 0;
}

static void assert_memory(uint64_t memory, uint64_t available)
{
	struct srdma_machine machine;

	srdma_machine_look(".", &machine);
	assert_int_equal(machine.memory, memory);
	assert_int_equal(machine.available, available);
}

TEST(without_groups_it_is_the_machines)
{
	assert_memory(16 * GIB, 8 * GIB);
	write_text("proc/self/cgroup", "0::/user.slice/session-1.scope\n");
	write_text("sys/fs/cgroup/user.slice/session-1.scope/memory.max", "max\n");
	assert_memory(16 * GIB, 8 * GIB);
}

TEST(group_may_have_less)
{
	write_text("proc/self/cgroup", "0::/system.slice/securdma.service\n");
	write_text("sys/fs/cgroup/system.slice/securdma.service/memory.max", "2147483648\n");
	write_text("sys/fs/cgroup/system.slice/securdma.service/memory.current", "1073741824\n");
	assert_memory(2 * GIB, GIB);
}

TEST(group_above_may_have_still_less)
{
	write_text("proc/self/cgroup", "0::/system.slice/securdma.service\n");
	write_text("sys/fs/cgroup/system.slice/securdma.service/memory.max", "2147483648\n");
	write_text("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
	write_text("sys/fs/cgroup/system.slice/memory.current", "2147483648\n");
	assert_memory(GIB, 0);
}

TEST(container_that_sees_its_hosts_path_has_its_own_at_the_top)
{
	write_text("proc/self/cgroup", "12:cpu:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n");
	write_text("sys/fs/cgroup/memory/memory.limit_in_bytes", "3221225472\n");
	assert_memory(3 * GIB, 3 * GIB);
}

TEST(unlimited_group_of_version_1_does_not_count)
{
	write_text("proc/self/cgroup", "4:memory:/\n");
	write_text("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	write_text("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n");
	assert_memory(16 * GIB, 8 * GIB);
}

TEST(what_cannot_be_read_is_no_limit)
{
	struct srdma_machine machine;

	srdma_machine_look("/nonexistent", &machine);
	assert_true(machine.memory == UINT64_MAX && machine.available == UINT64_MAX);
	write_text("proc/self/cgroup", "nonsense\n0:\n0::\n::\n0::relative\n");
	write_text("proc/meminfo", "MemTotal: many kB\n");
	srdma_machine_look(".", &machine);
	assert_true(machine.memory == UINT64_MAX);
}

TEST(this_machine_has_memory)
{
	struct srdma_machine machine;

	srdma_machine_look("", &machine);
	assert_uint_in_range(machine.memory >> 20, 16, 1ull << 30);
	assert_true(machine.available <= machine.memory);
}

RUN_TESTS_EACH(begin, leave_folder)
