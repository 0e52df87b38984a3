/* SPDX-License-Identifier: Apache-2.0 */
/* What a MACsec device does, by generic netlink. Any user may ask. */
#include "encryption_parts.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/if_macsec.h>
#include <linux/netlink.h>
#include <string.h>
#include <unistd.h>

/* Whether a list of secure associations has an active one; with a number, that one. */
static bool has_active(struct netlink_cursor list, int number)
{
	struct netlink_attribute item, attribute;

	while (netlink_attribute_next(&list, &item)) {
		bool active = false;
		int an = -1;

		while (netlink_attribute_next(&item.body, &attribute))
			if (attribute.type == MACSEC_SA_ATTR_ACTIVE)
				active = netlink_u8(&attribute);
			else if (attribute.type == MACSEC_SA_ATTR_AN)
				an = netlink_u8(&attribute);
		if (active && (number < 0 || number == an))
			return true;
	}
	return false;
}

/* Returns the number of the secure association that encrypts what is sent. */
static int take_secy(struct encryption_macsec *macsec, struct netlink_cursor nest)
{
	struct netlink_attribute attribute;
	int sends = -1;

	while (netlink_attribute_next(&nest, &attribute))
		switch (attribute.type) {
		case MACSEC_SECY_ATTR_ENCODING_SA: sends = netlink_u8(&attribute); break;
		case MACSEC_SECY_ATTR_PROTECT: macsec->protects = netlink_u8(&attribute); break;
		case MACSEC_SECY_ATTR_ENCRYPT: macsec->encrypts = netlink_u8(&attribute); break;
		case MACSEC_SECY_ATTR_VALIDATE: macsec->strict = netlink_u8(&attribute) == MACSEC_VALIDATE_STRICT; break;
		default: break;
		}
	return sends;
}

static void take_channels(struct encryption_macsec *macsec, struct netlink_cursor list)
{
	struct netlink_attribute item, attribute;

	while (netlink_attribute_next(&list, &item)) {
		bool active = false, has_key = false;
		uint8_t sci[8] = {0};

		while (netlink_attribute_next(&item.body, &attribute))
			switch (attribute.type) {
			case MACSEC_RXSC_ATTR_SCI: netlink_bytes(&attribute, sci, sizeof sci); break;
			case MACSEC_RXSC_ATTR_ACTIVE: active = netlink_u8(&attribute); break;
			case MACSEC_RXSC_ATTR_SA_LIST: has_key = has_active(attribute.body, -1); break;
			default: break;
			}
		if (!active || !has_key)
			continue;
		/* The channel's name begins with the hardware address of the device that sends on it. */
		if (memcmp(sci, macsec->peer, sizeof macsec->peer) == 0)
			macsec->receives = true;
		else
			macsec->receives_others = true;
	}
}

int encryption_macsec_parse(const struct netlink_message *message, void *arg)
{
	struct encryption_macsec *macsec = arg;
	struct netlink_cursor body = message->body, secy = {0}, sending = {0}, channels = {0};
	struct netlink_attribute attribute;
	struct genlmsghdr header;
	int index = 0;

	if (!netlink_take(&body, &header, sizeof header))
		return 0;
	while (netlink_attribute_next(&body, &attribute))
		switch (attribute.type) {
		case MACSEC_ATTR_IFINDEX: index = (int)netlink_u32(&attribute); break;
		case MACSEC_ATTR_SECY: secy = attribute.body; break;
		case MACSEC_ATTR_TXSA_LIST: sending = attribute.body; break;
		case MACSEC_ATTR_RXSC_LIST: channels = attribute.body; break;
		default: break;
		}
	if (index == 0 || index != macsec->index)
		return 0;
	macsec->found = true;
	index = take_secy(macsec, secy);
	macsec->sends = index >= 0 && has_active(sending, index);
	take_channels(macsec, channels);
	return 0;
}

int encryption_macsec_read(struct encryption_macsec *macsec)
{
	struct genlmsghdr header = {.cmd = MACSEC_CMD_GET_TXSC, .version = MACSEC_GENL_VERSION};
	struct netlink_request request;
	uint16_t family;
	int fd, ret = netlink_open_family(MACSEC_GENL_NAME, &fd, &family);

	if (ret < 0)
		return ret;
	netlink_begin(&request, family, NLM_F_DUMP, &header, sizeof header);
	ret = netlink_ask(fd, &request, encryption_macsec_parse, macsec);
	close(fd);
	return ret;
}
