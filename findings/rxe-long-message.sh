#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: a message longer than its receive is not a length error at either end.
#
# Guess: the receiver gets IBV_WC_LOC_LEN_ERR and the sender IBV_WC_REM_INV_REQ_ERR, as the specification and hardware have it.
# True:  the receiver gets IBV_WC_LOC_QP_OP_ERR, the sender IBV_WC_REM_OP_ERR: neither says that a size is wrong.
# Version: Linux 6.1.176 of Debian 12; 6.12 and 7.2 do the same.
#
# Output seen:
#   64 bytes into a receive of 8: sender "remote operation error", receiver "local QP operation error"
# shellcheck disable=SC2016  # single quotes keep what apt, awk and the guest expand
set -eu
[ "$(id -u)" -eq 0 ] || exec sudo -n sh "$0"
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
cannot() { echo "cannot run here: $*"; exit 77; }

# unpack SUITE PACKAGE[=VERSION]...: Debian's packages, and all that they depend on, into $t/root; nothing is installed.
unpack() {
    archive=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 $2 == "DebianDebian" {print $3; exit}')
    [ -n "$archive" ] || cannot "apt has no Debian archive among its sources"
    mkdir -p "$t/lists/partial" "$t/cache/archives/partial" "$t/parts" "$t/root/dev" "$t/root/tmp"
    for d in bin sbin lib lib64; do mkdir -p "$t/root/usr/$d" && ln -s "usr/$d" "$t/root/$d"; done
    mknod -m 666 "$t/root/dev/null" c 1 3 && mknod -m 666 "$t/root/dev/urandom" c 1 9
    : >"$t/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >"$t/sources"
    shift
    apt() {
        apt-get -qq -o Dir::State="$t" -o Dir::State::status="$t/status" -o Dir::Cache="$t/cache" \
            -o Dir::Etc::sourcelist="$t/sources" -o Dir::Etc::sourceparts="$t/parts" -o Dir::Etc::preferencesparts="$t/parts" \
            -o APT::Default-Release= -o APT::Install-Recommends=0 -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
    }
    if ! { apt update && apt -y --download-only install "$@"; } >"$t/log" 2>&1; then
        cannot "no such packages: $* ($(tail -n 1 "$t/log"))"
    fi
    for deb in "$t"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x --keep-directory-symlink -C "$t/root" --exclude=./usr/share/doc --exclude=./usr/share/locale
        rm "$deb"
    done
}

# boot MODULES PROGRAM...: starts the unpacked kernel in QEMU with those modules and programs, and runs $t/job (for busybox) there.
boot() {
    modules=$1 guest=$t/root/guest
    kernel=$(basename "$t"/root/boot/vmlinuz-* | sed 's/^vmlinuz-//')
    shift
    for d in bin proc sys dev tmp run etc/libibverbs.d modules usr/lib usr/lib64; do mkdir -p "$guest/$d"; done
    ln -s usr/lib "$guest/lib"
    ln -s usr/lib64 "$guest/lib64"
    cp "$t/root/etc/libibverbs.d/rxe.driver" "$guest/etc/libibverbs.d/"
    cp "$t/root/bin/busybox" "$guest/bin/"
    chroot "$t/root" depmod "$kernel"
    for module in $modules; do chroot "$t/root" modprobe -S "$kernel" --show-depends "$module"; done |
        awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$t/order"
    while read -r file; do cp "$t/root$file" "$guest/modules/"; done <"$t/order"
    sed 's,.*/,insmod /modules/,' "$t/order" >"$guest/load"
    # --list names a program's libraries, the loader among them; drivers of libibverbs are looked for at run time.
    for program in "$@" $(cd "$t/root" && echo usr/lib/x86_64-linux-gnu/libibverbs/librxe-*); do
        libraries=$(chroot "$t/root" /lib64/ld-linux-x86-64.so.2 --list "/$program" | grep -o '/[^ ]*')
        for file in "$program" $libraries; do
            case $file in
            *.so*) mkdir -p "$guest/${file%/*}" && cp -L "$t/root/$file" "$guest/$file" ;;
            *) cp "$t/root/$file" "$guest/bin/" ;;
            esac
        done
    done
    cp "$t/job" "$guest/job"
    cat >"$guest/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /tmp
export PATH=/bin:/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
. /load
echo begin
sh /job 2>&1
echo "status $?"
poweroff -f
END
    chmod 755 "$guest/init"
    chroot "$t/root" busybox sh -c 'cd /guest && find . | cpio -o -H newc 2>/dev/null' >"$t/root/tmp/initramfs"
    timeout 400 chroot "$t/root" qemu-system-x86_64 -accel tcg -cpu max -m 1G -nodefaults -display none -no-reboot -serial stdio \
        -kernel "/boot/vmlinuz-$kernel" -initrd /tmp/initramfs -append 'console=ttyS0 quiet loglevel=0 panic=-1 no_timer_check' \
        </dev/null 2>"$t/log" | tr -d '\r' >"$t/console" || true
    grep -q '^begin' "$t/console" || cannot "the virtual machine did not start: $(tail -n 3 "$t/log")"
    echo "Linux $kernel"
    awk '/^status / {exit} on {print} /^begin$/ {on = 1}' "$t/console" | tee "$t/output"
    grep -q '^status 0$' "$t/console"
}

unpack bookworm linux-image-6.1.0-50-amd64=6.1.176-1 libibverbs-dev=44.0-2 ibverbs-providers=44.0-2 iproute2=6.1.0-3 \
    gcc libc6-dev busybox-static qemu-system-x86 kmod
cat >"$t/root/tmp/rc.h" <<'END'
/* What a program needs that connects two queue pairs of the first device with each other. */
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct end {
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_qp_cap cap;
};
static struct ibv_context *device;
static struct ibv_pd *pd;
static struct ibv_mr *mr;
static union ibv_gid gid;
static char *buffer;
static int retry_cnt = 3;

static inline void must(int good, const char *what)
{
	if (!good) {
		printf("%s: %s\n", what, strerror(errno));
		exit(2);
	}
}

static inline void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	must(list && list[0], "device list");
	must((device = ibv_open_device(list[0])) != NULL, "open");
	must((pd = ibv_alloc_pd(device)) != NULL, "pd");
	must((buffer = aligned_alloc(4096, 65536)) != NULL, "buffer");
	memset(buffer, 0, 65536);
	must((mr = ibv_reg_mr(pd, buffer, 65536, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)) != NULL, "mr");
	must(!ibv_query_gid(device, 1, 1, &gid), "gid");
}

static inline void create(struct end *end, unsigned int depth)
{
	struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .cap = {depth, depth, 1, 1, 0}};

	must((end->channel = ibv_create_comp_channel(device)) != NULL, "channel");
	fcntl(end->channel->fd, F_SETFL, O_NONBLOCK);
	must((end->cq = ibv_create_cq(device, 256, NULL, end->channel, 0)) != NULL, "cq");
	init.send_cq = init.recv_cq = end->cq;
	must((end->qp = ibv_create_qp(pd, &init)) != NULL, "qp");
	end->cap = init.cap;
}

static inline void to_init(struct end *end)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};

	must(!ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
}

static inline void to_rtr(struct end *end, const struct end *peer)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer->qp->qp_num, .rq_psn = 7,
		.max_dest_rd_atomic = 1, .min_rnr_timer = 1,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = 1, .hop_limit = 64}},
	};
	int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC;

	must(!ibv_modify_qp(end->qp, &attr, mask | IBV_QP_MIN_RNR_TIMER), "RTR");
}

static inline void to_rts(struct end *end)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = (unsigned char)retry_cnt, .rnr_retry = 6, .sq_psn = 7, .max_rd_atomic = 1,
	};
	int mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;

	must(!ibv_modify_qp(end->qp, &attr, mask), "RTS");
}

static inline void connect_ends(struct end *a, struct end *b, unsigned int depth)
{
	create(a, depth), create(b, depth);
	to_init(a), to_init(b);
	to_rtr(a, b), to_rtr(b, a);
	to_rts(a), to_rts(b);
}

static inline int post_send(struct end *end, enum ibv_wr_opcode opcode, unsigned int flags, unsigned int length, unsigned int rkey)
{
	struct ibv_sge sge = {(uintptr_t)buffer, length, mr->lkey};
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = flags, .wr.rdma = {(uintptr_t)buffer + 8192, rkey},
	}, *bad;

	return ibv_post_send(end->qp, &wr, &bad);
}

static inline int post_recv(struct end *end, unsigned int length)
{
	struct ibv_sge sge = {(uintptr_t)buffer + 4096, length, mr->lkey};
	struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;

	return ibv_post_recv(end->qp, &wr, &bad);
}

/* The status of the next completion, or -1 after so many milliseconds. */
static inline int next_status(struct end *end, int ms)
{
	struct ibv_wc wc;

	for (; ms >= 0; ms--, usleep(1000))
		if (ibv_poll_cq(end->cq, 1, &wc) > 0)
			return (int)wc.status;
	return -1;
}

static inline const char *text(int status)
{
	return status < 0 ? "none" : ibv_wc_status_str((enum ibv_wc_status)status);
}
END
cat >"$t/root/tmp/try.c" <<'END'
#include "rc.h"

int main(void)
{
	struct end a, b;
	int sender, receiver;

	open_device();
	connect_ends(&a, &b, 4);
	must(!post_recv(&b, 8), "post_recv");
	must(!post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 64, 0), "post_send");
	sender = next_status(&a, 5000), receiver = next_status(&b, 5000);
	printf("64 bytes into a receive of 8: sender \"%s\", receiver \"%s\"\n", text(sender), text(receiver));
	return !(sender == IBV_WC_REM_OP_ERR && receiver == IBV_WC_LOC_QP_OP_ERR);
}
END
chroot "$t/root" gcc -Wall -o /tmp/try /tmp/try.c -libverbs
cat >"$t/job" <<'END'
/bin/ip link set lo up
/bin/ip link add d0 type dummy
/bin/ip addr add 10.77.0.1/24 dev d0
/bin/ip link set d0 up
/bin/rdma link add rxe0 type rxe netdev d0
exec /bin/try
END
boot "crc32_generic dummy rdma_rxe ib_uverbs" bin/ip bin/rdma tmp/try
