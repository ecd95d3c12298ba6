# title: NTFS made by mkntfs, mounted by ntfs-3g: files, a stream and holes read back after remount
# peers: ntfs-3g kernel
# target storage: disk d0 size=64MiB
# timeout: 240

login storage
disk=$(disk storage d0)
modprobe fuse
mkntfs --quick --quiet --force --label SAN "$disk"
ntfs-3g -o streams_interface=windows "$disk" /mnt
cp -r /usr/lib/python3.11/json /mnt/documents
dd if=/dev/urandom of=/mnt/random bs=64k count=160 status=none
echo "a second stream" >/mnt/random:note
truncate -s 1M /mnt/holes
printf end >>/mnt/holes
before=$(cd /mnt && find . -type f -print0 | sort -z | xargs -0 sha256sum | sum)
umount /mnt
ntfsfix --no-action "$disk" >fix.out 2>&1 || { cat fix.out; die "ntfsfix"; }
ok "ntfsfix finds nothing: $(tail -n1 fix.out)"
echo 3 >/proc/sys/vm/drop_caches
ntfs-3g -o ro,streams_interface=windows "$disk" /mnt
same "the files after a remount" "$before" "$(cd /mnt && find . -type f -print0 | sort -z | xargs -0 sha256sum | sum)"
same "the alternate stream" "a second stream" "$(</mnt/random:note)"
umount /mnt
