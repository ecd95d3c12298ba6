# title: ext4 made, fio written and verified, unmounted, checked, and read again after a new login
# peers: e2fsprogs fio open-iscsi kernel
# target storage: disk d0 size=64MiB
# timeout: 240

login storage
disk=$(disk storage d0)
mkfs.ext4 -q -m 0 "$disk"
mount "$disk" /mnt
fio --name=mixed --directory=/mnt --size=16M --rw=randwrite --bsrange=4k-64k --ioengine=psync \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --end_fsync=1 --randseed=3 >fio.out || {
	cat fio.out
	die "fio"
}
matches "fio wrote and verified" "err= 0" "$(<fio.out)"
fio --name=direct --filename=/mnt/direct --size=8M --rw=write --bs=256k --direct=1 --iodepth=8 \
	--ioengine=libaio --verify=md5 --verify_fatal=1 --do_verify=1 >fio.out || {
	cat fio.out
	die "fio with direct I/O"
}
matches "fio with direct queued I/O" "err= 0" "$(<fio.out)"
before=$(cd /mnt && sha256sum mixed* direct)
umount /mnt
e2fsck -f -n "$disk" >fsck.out 2>&1 || { cat fsck.out; die "e2fsck"; }
ok "e2fsck finds nothing: $(tail -n1 fsck.out)"
logout storage
login storage
disk=$(disk storage d0)
mount -o ro "$disk" /mnt
same "the files after a new session" "$before" "$(cd /mnt && sha256sum mixed* direct)"
umount /mnt
