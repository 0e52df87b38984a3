/* SPDX-License-Identifier: Apache-2.0 */
/* An MPI program: sums over all processes, messages around a ring, and one-sided access, of many sizes; each number is checked.
 * usage: mpi_check [two-sided]: without the last. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int rank, size;

static void fail(const char *what, int count, int index)
{
	fprintf(stderr, "process %d: %s of %d numbers: number %d is wrong\n", rank, what, count, index);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static void sum(int *in, int *out, int count)
{
	for (int i = 0; i < count; i++)
		in[i] = i + rank;
	MPI_Allreduce(in, out, count, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	for (int i = 0; i < count; i++)
		if (out[i] != size * i + size * (size - 1) / 2)
			fail("the sum", count, i);
}

static void ring(int *in, int *out, int count)
{
	int left = (rank + size - 1) % size;

	for (int i = 0; i < count; i++)
		in[i] = 3 * i + rank;
	MPI_Sendrecv(in, count, MPI_INT, (rank + 1) % size, 1, out, count, MPI_INT, left, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	for (int i = 0; i < count; i++)
		if (out[i] != 3 * i + left)
			fail("the message", count, i);
}

/* Each writes into the memory of the next, and reads it back. */
static void one_sided(int *in, int *out, int count)
{
	int *memory, next = (rank + 1) % size;
	MPI_Win window;

	MPI_Win_allocate(count * (int)sizeof *memory, sizeof *memory, MPI_INFO_NULL, MPI_COMM_WORLD, &memory, &window);
	for (int i = 0; i < count; i++)
		in[i] = 5 * i + rank;
	MPI_Win_fence(0, window);
	MPI_Put(in, count, MPI_INT, next, 0, count, MPI_INT, window);
	MPI_Win_fence(0, window);
	for (int i = 0; i < count; i++)
		if (memory[i] != 5 * i + (rank + size - 1) % size)
			fail("the write", count, i);
	MPI_Get(out, count, MPI_INT, next, 0, count, MPI_INT, window);
	MPI_Win_fence(0, window);
	for (int i = 0; i < count; i++)
		if (out[i] != 5 * i + rank)
			fail("the read", count, i);
	MPI_Win_free(&window);
}

int main(int argc, char **argv)
{
	enum { MOST = 1 << 18 };
	int *in = malloc(MOST * sizeof *in), *out = malloc(MOST * sizeof *out);

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	for (int count = 1; count <= MOST; count *= 8) {
		sum(in, out, count);
		ring(in, out, count);
		if (argc < 2)
			one_sided(in, out, count);
	}
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0)
		printf("%d processes: all numbers are right\n", size);
	MPI_Finalize();
	free(in);
	free(out);
	return 0;
}
