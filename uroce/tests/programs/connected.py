# SPDX-License-Identifier: Apache-2.0
"""A connection of rdma_cm whose ends only wait, without a queue pair. usage: connected.py (serve | dial) PORT; CM_HOST has the address.
Prints "connected", and "disconnected" when the other end has gone."""
import sys

from librdmacm import CONNECT_RESPONSE, DISCONNECTED, ESTABLISHED, ID, Channel, parameters

_, role, port = sys.argv
channel = Channel()
if role == "serve":
    listener = ID(channel)
    listener.listen(int(port))
    request = ID(channel, channel.get()[1])
    request.call("rdma_accept", parameters())
    channel.expect(ESTABLISHED)
else:
    one = ID(channel)
    one.dial(channel, int(port))
    channel.expect(CONNECT_RESPONSE)
    one.call("rdma_establish")
print("connected", flush=True)
assert channel.get()[0] == DISCONNECTED
print("disconnected", flush=True)
