// SPDX-License-Identifier: Apache-2.0
// usage: gloo RANK SIZE FOLDER DEVICE [GID-INDEX]
// Collective operations over gloo's ibverbs transport, at several sizes, with the data checked. Exit status 0: all right.
#include <cstdlib>
#include <deque>
#include <iostream>
#include <memory>
#include <vector>

#include <gloo/allgather_ring.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/barrier_all_to_all.h>
#include <gloo/broadcast_one_to_all.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/ibverbs/device.h>

using Numbers = std::vector<int>;

static int rank, size;
static std::shared_ptr<gloo::Context> context;
// gloo lets no buffer go while a send from it is not complete, which may be later than the end of the operation: all stay.
static std::deque<Numbers> buffers;
static std::deque<std::unique_ptr<gloo::Algorithm>> algorithms;

static Numbers &buffer(size_t count, int value = 0)
{
	return buffers.emplace_back(count, value);
}

template <class Algorithm, class... Arguments>
static gloo::Algorithm &make(Arguments... arguments)
{
	return *algorithms.emplace_back(new Algorithm(context, arguments...));
}

static void expect(bool right, const char *what, size_t count)
{
	if (right)
		return;
	std::cerr << "rank " << rank << ": " << what << " of " << count << " numbers: wrong data\n";
	std::_Exit(1);
}

template <class Allreduce>
static void allreduce(const char *what, size_t count)
{
	Numbers &data = buffer(count);
	gloo::Algorithm &algorithm = make<Allreduce>(std::vector<int *>{data.data()}, (int)count);
	for (int round = 0; round < 5; round++) {
		for (size_t i = 0; i < count; i++)
			data[i] = rank * 1000 + round + (int)(i % 97);
		algorithm.run();
		for (size_t i = 0; i < count; i++)
			expect(data[i] == size * (size - 1) / 2 * 1000 + size * (round + (int)(i % 97)), what, count);
	}
}

static void broadcast(size_t count)
{
	Numbers &data = buffer(count, rank);
	make<gloo::BroadcastOneToAll<int>>(std::vector<int *>{data.data()}, (int)count, size - 1).run();
	for (int value : data)
		expect(value == size - 1, "broadcast", count);
}

static void allgather(size_t count)
{
	Numbers &mine = buffer(count, rank), &all = buffer(count * (size_t)size, -1);
	make<gloo::AllgatherRing<int>>(std::vector<const int *>{mine.data()}, all.data(), (int)count).run();
	for (size_t i = 0; i < all.size(); i++)
		expect(all[i] == (int)(i / count), "allgather", count);
}

/* What connectFullMesh wants of the store has changed. */
static void connect(gloo::rendezvous::Context &mesh, void (gloo::rendezvous::Context::*by)(gloo::rendezvous::Store &,
											   std::shared_ptr<gloo::transport::Device> &),
		    const std::shared_ptr<gloo::rendezvous::Store> &store, std::shared_ptr<gloo::transport::Device> &device)
{
	(mesh.*by)(*store, device);
}

static void connect(gloo::rendezvous::Context &mesh, void (gloo::rendezvous::Context::*by)(std::shared_ptr<gloo::rendezvous::Store>,
											   std::shared_ptr<gloo::transport::Device> &),
		    const std::shared_ptr<gloo::rendezvous::Store> &store, std::shared_ptr<gloo::transport::Device> &device)
{
	(mesh.*by)(store, device);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	rank = std::atoi(argv[1]);
	size = std::atoi(argv[2]);
	gloo::transport::ibverbs::attr attr;
	attr.name = argv[4];
	attr.port = 1;
	attr.index = argc > 5 ? std::atoi(argv[5]) : 0;
	auto device = gloo::transport::ibverbs::CreateDevice(attr);
	auto mesh = std::make_shared<gloo::rendezvous::Context>(rank, size);
	connect(*mesh, &gloo::rendezvous::Context::connectFullMesh, std::make_shared<gloo::rendezvous::FileStore>(argv[3]), device);
	context = mesh;
	for (size_t count : {1, 7, 1000, 4096, 100003, 1000000}) {
		allreduce<gloo::AllreduceRingChunked<int>>("allreduce in a ring", count);
		allreduce<gloo::AllreduceHalvingDoubling<int>>("allreduce by halves", count);
		broadcast(count);
		allgather(count);
	}
	make<gloo::BarrierAllToAll>().run();
	std::cout << "verified" << std::endl;
	std::_Exit(0);
}
