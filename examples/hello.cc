// SPDX-License-Identifier: Apache-2.0
// The library from C++: its objects in smart pointers, an error as an exception.
// usage: hello HOST PORT   with ca.crt, client.crt and client.key in the working folder
#include <cstdio>
#include <memory>
#include <securdma.h>
#include <stdexcept>
#include <string>
#include <vector>

template <typename T, void (*release)(T **)> struct Releaser {
	void operator()(T *object) const { release(&object); }
};
template <typename T, void (*release)(T **)> using Handle = std::unique_ptr<T, Releaser<T, release>>;
using Context = Handle<srdma_tls_context, srdma_tls_context_unref>;
using Device = Handle<srdma_device, srdma_device_unref>;
using Conn = Handle<srdma_conn, srdma_conn_free>;

static void check(int result)
{
	if (result < 0)
		throw std::runtime_error(srdma_error_text());
}

static Context make_context()
{
	srdma_tls_client_options options;
	srdma_tls_context *context;

	srdma_tls_client_options_init(&options);
	options.ca_file = "ca.crt";
	options.cert_file = "client.crt";
	options.key_file = "client.key";
	check(srdma_tls_client_new(&options, &context));
	return Context(context);
}

static Device open_device()
{
	srdma_device *device;

	check(srdma_device_open(nullptr, &device));
	return Device(device);
}

static Conn connect(const char *host, const char *port)
{
	// The connection has references of its own to both.
	const Context context = make_context();
	const Device device = open_device();
	srdma_conn *conn;

	check(srdma_conn_connect(host, port, context.get(), device.get(), nullptr, &conn));
	return Conn(conn);
}

static std::string echo(srdma_conn *conn, const std::string &text)
{
	srdma_conn_info info;
	std::size_t length;

	srdma_conn_get_info(conn, &info);
	std::vector<char> reply(info.message_size);
	check(srdma_conn_send(conn, text.data(), text.size(), SRDMA_DEFAULT_TIMEOUT));
	check(srdma_conn_recv(conn, reply.data(), reply.size(), &length, SRDMA_DEFAULT_TIMEOUT));
	return std::string(reply.begin() + SRDMA_ECHO_OVERHEAD, reply.begin() + static_cast<std::ptrdiff_t>(length));
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		std::fprintf(stderr, "usage: hello HOST PORT\n");
		return 2;
	}
	try {
		const Conn conn = connect(argv[1], argv[2]);

		std::printf("echo: %s\n", echo(conn.get(), "hello").c_str());
		check(srdma_conn_disconnect(conn.get(), "done", SRDMA_DEFAULT_TIMEOUT));
	} catch (const std::exception &error) {
		std::fprintf(stderr, "hello: %s\n", error.what());
		return 1;
	}
	return 0;
}
