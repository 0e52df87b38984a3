#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: it refuses a VLAN device with "Operation not permitted"; the VLAN's addresses are GIDs of the device below.
#
# Guess: a VLAN is a network device like another: make an rxe device on it, as on a bridge or a macvlan; and EPERM means that root's
#        rights are missing.
# True:  rxe takes a bridge, but no VLAN, whoever asks. Make it on the physical device: every VLAN's (and macvlan's) addresses show up
#        in that one's GID table, with the VLAN's name in gid_attrs/ndevs, and the GID index chooses the VLAN.
# Version: Linux 6.1.176 and iproute2 6.1.0 of Debian 12.
#
# Output seen:
#   error: Operation not permitted
#   on a VLAN: exit status 1
#   on a bridge: exit status 0
#   0000:0000:0000:0000:0000:ffff:0a05:0001 of d0.5 is a GID of rxe0
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

unpack bookworm linux-image-6.1.0-50-amd64=6.1.176-1 ibverbs-providers=44.0-2 iproute2=6.1.0-3 busybox-static qemu-system-x86 kmod
cat >"$t/job" <<'END'
/bin/ip link add d0 type dummy
/bin/ip addr add 10.77.0.1/24 dev d0
/bin/ip link set d0 up
/bin/rdma link add rxe0 type rxe netdev d0
/bin/ip link add link d0 name d0.5 type vlan id 5
/bin/ip addr add 10.5.0.1/24 dev d0.5
/bin/ip link set d0.5 up
/bin/ip link add b0 type bridge
/bin/rdma link add rxe1 type rxe netdev d0.5
echo "on a VLAN: exit status $?"
/bin/rdma link add rxe2 type rxe netdev b0
echo "on a bridge: exit status $?"
sleep 2
cd /sys/class/infiniband/rxe0/ports/1
for i in 0 1 2 3 4 5 6 7; do
    [ "$(cat gid_attrs/ndevs/$i 2>/dev/null)" != d0.5 ] || echo "$(cat gids/$i) of d0.5 is a GID of rxe0"
done | grep ffff
END
boot "crc32_generic dummy 8021q bridge rdma_rxe" bin/ip bin/rdma
grep -q '^on a VLAN: exit status 1$' "$t/output" && grep -q '^on a bridge: exit status 0$' "$t/output" && grep -q '^0000:0000:0000:0000:0000:ffff:0a05:0001 of d0.5' "$t/output"
