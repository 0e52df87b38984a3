# shellcheck shell=sh disable=SC2016
# SPDX-License-Identifier: Apache-2.0
# Each finding that needs rdma_rxe sources this file: it runs Debian's kernel in QEMU.
lib=$(dirname "$0")/lib
. "$lib/root.sh"

# unpack_kernel PACKAGE...: unpacks the kernel, what boot needs, and these packages.
unpack_kernel() {
    unpack bookworm linux-image-6.1.0-50-amd64=6.1.176-1 ibverbs-providers=44.0-2 iproute2=6.1.0-3 busybox-static qemu-system-x86 kmod "$@"
}

# compile <PROGRAM.c: unpacks the kernel and a compiler, and builds tmp/try, which may include rc.h and wire.h, and call librdmacm.
compile() {
    unpack_kernel libibverbs-dev=44.0-2 librdmacm-dev=44.0-2 gcc libc6-dev
    cp "$lib/rc.h" "$lib/wire.h" "$t/root/tmp/"
    cat >"$t/root/tmp/try.c"
    chroot "$t/root" gcc -Wall -o /tmp/try /tmp/try.c -Wl,--as-needed -libverbs -lrdmacm
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

# run_on_dummy COMMANDS MODULES [FILE...]: runs the commands where rxe0 is on a dummy with the address 10.77.0.1, beside the program that was
# compiled, with more modules and files. The status is that of the last command.
run_on_dummy() {
    cat >"$t/job" <<'END'
/bin/ip link set lo up
/bin/ip link add d0 type dummy
/bin/ip addr add 10.77.0.1/24 dev d0
/bin/ip link set d0 up
/bin/rdma link add rxe0 type rxe netdev d0
END
    echo "$1" >>"$t/job"
    modules=$2
    shift 2
    boot "crc32_generic dummy rdma_rxe ib_uverbs $modules" bin/ip bin/rdma tmp/try "$@"
}

# try_on_dummy <PROGRAM.c: compiles the program and runs it there. Its status is the program's.
try_on_dummy() {
    compile
    run_on_dummy 'exec /bin/try' ''
}

# told PATTERN...: fails unless each of these regular expressions matches the beginning of a line that the guest printed.
told() {
    for line in "$@"; do grep -q "^$line" "$t/output" || { echo "not told: $line"; return 1; }; done
}
