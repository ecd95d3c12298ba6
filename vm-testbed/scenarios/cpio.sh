# title: cpio, dump and restore on the tape in fixed and variable blocks
# peers: cpio dump mt-st kernel
# target storage: disk d0 size=48MiB
# target backup: tape t0 capacity=128MiB
# timeout: 300

login storage
login backup
disk=$(disk storage d0) tape=$(tape backup t0)
mkfs.ext4 -q -m 0 "$disk"
mount "$disk" /mnt
cp -r /usr/lib/python3.11/asyncio /mnt
dd if=/dev/urandom of=/mnt/random bs=64k count=64 status=none
content() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sum); }
before=$(content /mnt)

mt -f "$tape" rewind
mt -f "$tape" setblk 512
(cd /mnt && find . | cpio -o -H newc --io-size=5120 >"$tape" 2>/dev/null)
mt -f "$tape" rewind
mkdir from-cpio
(cd from-cpio && cpio -id --io-size=5120 <"$tape" 2>/dev/null)
same "the files that cpio brought back" "$before" "$(content from-cpio)"

mt -f "$tape" rewind
mt -f "$tape" setblk 0
umount /mnt
dump -0 -b 32 -f "$tape" "$disk" >dump.out 2>&1 || { cat dump.out; die "dump"; }
ok "dump: $(grep -oE 'DUMP: [0-9]+ blocks.*' dump.out | head -n1)"
mt -f "$tape" rewind
mkdir from-dump
(cd from-dump && restore -r -b 32 -f "$tape" >../restore.out 2>&1) || { cat restore.out; die "restore"; }
rm -f from-dump/restoresymtable
same "the files that restore brought back" "$before" "$(content from-dump)"
