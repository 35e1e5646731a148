#!/bin/busybox sh
# Process 1 of the emulated machine: drivers, Debian's files, the checkout's; then the guest's part.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev
for module in $($B cat /mod/order); do
  $B insmod /mod/$module || echo "GUEST module $module cannot be loaded"
done
$B mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 tree /root
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 files /root/mnt
for folder in dev proc sys; do
  $B mount --bind /$folder /root/$folder
done
$B ln -s /proc/self/fd /dev/fd
echo "GUEST booted"
$B chroot /root /usr/bin/env -i PATH=/usr/bin:/bin PYTHONPATH=/mnt:/wheels \
    PYTHONPYCACHEPREFIX=/mnt/compiled PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1 \
    LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu/blas:/usr/lib/aarch64-linux-gnu/lapack \
    python3.11 /mnt/guest.py
echo "GUEST ended with $?"
$B poweroff -f
