# title: fstrim gives the space of deleted files back to the host
# peers: e2fsprogs kernel
# target storage: disk d0 size=64MiB,thin
# timeout: 240

login storage
disk=$(disk storage d0)
matches "the kernel discards by" "[1-9]" "$(<"/sys/block/${disk##*/}/queue/discard_max_bytes")"
mkfs.ext4 -q -m 0 "$disk"
mount "$disk" /mnt
dd if=/dev/urandom of=/mnt/ballast bs=1M count=24 conv=fsync status=none
sync
full=$(host allocated d0)
[ "$full" -ge $((24 << 20)) ] || die "only $full bytes are allocated with 24 MiB written"
ok "allocated on the host with the file: $full"
rm /mnt/ballast
sync
fstrim -v /mnt
after=$(host allocated d0)
[ "$after" -le $((full - (20 << 20))) ] || die "fstrim freed too little: $full -> $after"
ok "allocated on the host after fstrim: $after"
umount /mnt
e2fsck -f -n "$disk" >fsck.out 2>&1 || { cat fsck.out; die "e2fsck"; }
ok "e2fsck after fstrim"
blkdiscard -f "$disk"
same "a discarded disk reads as zeros" 0 "$(dd if="$disk" bs=1M count=64 status=none | tr -d '\0' | wc -c)"
