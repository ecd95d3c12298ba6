# title: a 4096-byte-block disk under XFS: files written, checked, read back
# peers: xfsprogs kernel
# target storage: disk d0 size=320MiB,block=4096,thin
# timeout: 240

login storage
disk=$(disk storage d0)
modprobe xfs
mkfs.xfs -q "$disk"
mount "$disk" /mnt
cp -r /usr/lib/python3.11/json /usr/lib/python3.11/asyncio /mnt
dd if=/dev/urandom of=/mnt/random bs=1M count=12 conv=fsync status=none
before=$(cd /mnt && find . -type f -print0 | sort -z | xargs -0 sha256sum | sum)
umount /mnt
xfs_repair -n "$disk" >repair.out 2>&1 || { cat repair.out; die "xfs_repair"; }
ok "xfs_repair -n finds nothing"
echo 3 >/proc/sys/vm/drop_caches
mount "$disk" /mnt
same "the files read back" "$before" "$(cd /mnt && find . -type f -print0 | sort -z | xargs -0 sha256sum | sum)"
umount /mnt
