/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the ports that can be used. */
#include <securdma.h>
#include <stdio.h>

int print_ports(void)
{
	struct srdma_port_info *list;
	size_t count;
	int ret = srdma_device_list(&list, &count);

	if (ret != 0)
		return ret;
	for (size_t i = 0; i < count; i++)
		if (list[i].state == IBV_PORT_ACTIVE && list[i].is_local)
			printf("%s port %d\n", list[i].device, list[i].port);
	srdma_device_list_free(&list);
	return 0;
}
