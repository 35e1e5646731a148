#!/bin/bash
# boot.sh TREE SCRATCH FILES CGROUP: systemd as PID 1 of new namespaces, over a copy of TREE in
# memory with FILES added. Nothing of the host can be written from inside but CGROUP.
#
# The kernel ends PID 1 of a namespace that asks for a reboot with SIGHUP, and touches nothing else.
set -e
echo $$ > "$4/cgroup.procs"
exec unshare --pid --fork --mount --uts --ipc --cgroup --net --kill-child --propagation private \
    bash -ec '
tree=$1 scratch=$2 files=$3
mount -t tmpfs memory "$scratch"
cd "$scratch"
mkdir up work root
mount -t overlay -o "lowerdir=$tree,upperdir=up,workdir=work" system root
cp -r "$files/." root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
if [ -e proc/sysrq-trigger ]; then
  mount --bind proc/sysrq-trigger proc/sysrq-trigger
  mount -o remount,bind,ro proc/sysrq-trigger
fi
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 memory run
mount -t tmpfs -o mode=755 memory dev
for node in null zero full random urandom tty; do
  touch dev/$node
  mount --bind /dev/$node dev/$node
done
ln -s /proc/self/fd dev/fd
mkdir dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mkdir -p .host
pivot_root . .host
umount -l /.host
exec env -i container=gruard-test PATH=/usr/sbin:/usr/bin /lib/systemd/systemd \
    --system --unit=multi-user.target --show-status=0 --log-target=journal
' boot "$1" "$2" "$3"
