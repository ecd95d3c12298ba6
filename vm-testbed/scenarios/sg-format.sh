# title: sg_format changes block length and capacity, sg_ident names the disk; it grows under a mounted XFS that fio has filled
# peers: sg3-utils xfsprogs fio kernel
# target storage: disk d0 size=320MiB,thin; disk d1 size=8MiB
# timeout: 240

login storage
d0=$(generic storage d0) d1=$(generic storage d1)
rescan() { echo 1 >"$(unit_path storage "$1")/rescan"; }
blocks() { sg_readcap --long "$1" | tr '\n' ' '; }

sg_format --format --size=4096 --wait --quick "$d1" >format.out 2>&1 || {
	cat format.out
	die "sg_format --size=4096"
}
matches "read capacity after the format" "length=4096 bytes" "$(blocks "$d1")"
rescan d1
block=$(disk storage d1)
same "the kernel's block length" 4096 "$(<"/sys/block/${block#/dev/}/queue/logical_block_size")"
same "a formatted disk is empty" 0 "$(dd if="$block" bs=1M iflag=direct status=none | tr -d '\0' | wc -c)"

sg_format --resize --count=1024 "$d1" >resize.out 2>&1 || {
	cat resize.out
	die "sg_format --resize"
}
matches "read capacity after the resize" "Last LBA=1023 .*length=4096 bytes" "$(blocks "$d1")"
rescan d1
same "the kernel's capacity, in sectors" 8192 "$(<"/sys/block/${block#/dev/}/size")"
fails "a read behind the new end" sg_dd if="$d1" of=/dev/null bs=4096 skip=1024 count=1

printf 'the disk in the corner' | sg_ident --set "$d1" >/dev/null
matches "sg_ident" "the disk in the corner" "$(sg_ident --ascii "$d1")"

host kill storage
for try in $(seq 30); do
	sg_turs "$d1" >/dev/null 2>&1 && break
	sleep 1
done
matches "block length and capacity outlive kill -9" "Last LBA=1023 .*length=4096 bytes" "$(blocks "$d1")"
matches "the identifier too" "the disk in the corner" "$(sg_ident --ascii "$d1")"
sg_format --resize --count=-1 "$d1" >/dev/null 2>&1
matches "all of it again" "Last LBA=2047 " "$(blocks "$d1")"

sg_turs "$d0" || sg_turs "$d0"
block=$(disk storage d0)
modprobe xfs
mkfs.xfs -q "$block" >mkfs.out 2>&1
same "mkfs.xfs finds nothing odd in the sizes of VPD page B0h" "" "$(<mkfs.out)"
mount "$block" /mnt
fio --name=mixed --directory=/mnt --size=12M --rw=randwrite --bsrange=4k-64k --ioengine=psync \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --end_fsync=1 --randseed=5 >fio.out || {
	cat fio.out
	die "fio"
}
matches "fio wrote and verified" "err= 0" "$(<fio.out)"
size() { df --output=size /mnt | tail -n1 | tr -d ' '; }
before=$(size)
host grow d0 $((400 << 20)) >/dev/null
rescan d0
same "the kernel has seen the disk grow" $((400 << 11)) "$(<"/sys/block/${block#/dev/}/size")"
xfs_growfs /mnt >/dev/null
same "and so has the mounted file system, in KiB" $((before + (80 << 10))) "$(size)"
umount /mnt
xfs_repair -n "$block" >repair.out 2>&1 || { cat repair.out; die "xfs_repair"; }
ok "xfs_repair -n finds nothing"
