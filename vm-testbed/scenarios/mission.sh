# title: NTFS backed up through the quiet gate by the mover, destroyed, restored; GNU tar reads the tape
# peers: ntfs-3g tar mt-st open-iscsi kernel
# target storage: api; disk volume size=40MiB; disk other size=1MiB
# target library: tape t0 capacity=256MiB
# mover: storage library
# timeout: 400

login storage
login library
volume=$(disk storage volume) other=$(disk storage other) tape=$(tape library t0)
disk_url=$(host url storage volume) tape_url=$(host url library t0) mover_url=$(host mover-url)
modprobe fuse
backup() { host serverfree backup --mover "$mover_url" --disk "$disk_url" --tape "$tape_url" "$@"; }
restore() { host serverfree restore --mover "$mover_url" --disk "$disk_url" --tape "$tape_url" "$@"; }
mount_volume() { ntfs-3g -o "$2,noatime,streams_interface=windows" "$1" /mnt; }
# Seen afresh each time: what the kernel holds of a disk that others write to is no judge
unmount_volume() { umount /mnt && blockdev --flushbufs "$volume"; }
# fact FILE NAME...: of a command's --json
fact() { python3 -IS -c 'import json, sys; facts = json.load(open(sys.argv[1])); print(*map(facts.get, sys.argv[2:]))' "$@"; }
cat >contents.py <<'P'
"""Every file, stream and folder below /mnt: what it holds, its links, its access list and times."""
import hashlib, os
def show(path, what):
    print(hashlib.sha256(what).hexdigest(), path)
def content(path):
    with open(path, "rb") as file:
        return file.read()
for folder, folders, files in sorted(os.walk("/mnt")):
    for name in sorted(folders + files):
        path = f"{folder}/{name}"
        known = [os.getxattr(path, f"system.ntfs_{each}") for each in ("acl", "attrib", "times")]
        show(path, b"".join(known))
        if name in files:
            show(f"{path} ({os.stat(path).st_nlink} links)", content(path))
            for stream in filter(None, os.getxattr(path, "ntfs.streams.list").split(b"\0")):
                show(f"{path}:{stream.decode()}", content(f"{path}:{stream.decode()}"))
P
contents() { python3 -IS contents.py; }

# A volume with what is hard about NTFS, and on the tape an archive that someone else has put there
mkntfs --quick --quiet --force --label MISSION "$volume" 2>/dev/null
mount_volume "$volume" rw
cp -r /usr/lib/python3.11/json /mnt/documents
head -c 6000001 /dev/urandom >/mnt/documents/large
ln /mnt/documents/encoder.py "/mnt/another name of it"
echo "a small stream" >/mnt/documents/large:note
head -c 300000 /dev/urandom >/mnt/documents/large:stream
truncate -s 4M /mnt/holes
head -c 70000 /dev/urandom | dd of=/mnt/holes bs=1M seek=2 conv=notrunc status=none
mkdir -p "/mnt/Übung/empty"
for n in $(seq 20); do echo "resident $n" >"/mnt/Übung/$n.txt"; done
setfattr -n system.ntfs_attrib_be -v 0x00000022 /mnt/holes
mt -f "$tape" setblk 0
tar -b 20 -cf "$tape" -C /usr/lib/python3.11 json

# The gate stays shut while the guest writes to the volume, and the tape where it was
stands=$(mt -f "$tape" tell)
python3 -IS -c '
import os, time
log = os.open("/mnt/log", os.O_CREAT | os.O_WRONLY)
while True:
    os.write(log, b"a line\n")
    os.fsync(log)
    time.sleep(0.5)
' &
writer=$!
until [ -s /mnt/log ]; do sleep 0.1; done
fails "no backup of a volume at work" backup --quiet 3 --timeout 8
kill $writer && wait $writer || true
matches "why" "no 3 s without a write" "$(<fails.out)"
same "the tape has not been moved" "$stands" "$(mt -f "$tape" tell)"
same "snapshots left" "[]" "$(host serverfree snapshot list --json)"
unmount_volume

mount_volume "$volume" ro
contents >before
unmount_volume
say "the volume holds $(wc -l <before) files, folders and streams"

# It opens while another disk is written to
while :; do date | dd of="$other" bs=512 conv=sync oflag=direct status=none && echo >>writes; done &
writer=$!
backup --name mission --json >image.json
say "an image is on tape"
backup --mode files --json >files.json
written=$(wc -l <writes)
sleep 1
[ "$(wc -l <writes)" -gt "$written" ] || die "the other disk was not written to"
kill $writer && wait $writer || true
ok "two backups while another disk was written to $written times"
image=$(fact image.json backup) files=$(fact files.json backup)
for job in image files; do
	same "backup of $job" "$job done copy manager crash" "$(fact $job.json mode state through consistency)"
	matches "bytes by the mover, waited for quiet" "^[0-9]{7,} [0-9.]+ backup-" "$(fact $job.json moved_bytes snapshot_waited snapshot)"
done
same "content of the image that passed through the server" 0 "$(fact image.json server_bytes)"
matches "part of the files' content that passed through the server" "^0[.]00.*|.*e-.*" "$(fact files.json server_share)"

# A snapshot is a disk of its own to the guest, and stays what it is while the volume is destroyed
host serverfree snapshot create volume --name kept --json >kept.json
iscsiadm -m session --rescan >/dev/null
LUN_storage_kept=$(fact kept.json lun)
kept=$(disk storage kept)
same "the snapshot is read-only" 1 "$(blockdev --getro "$kept")"
fails "writing to it" dd if=/dev/zero of="$kept" bs=4096 count=1 oflag=direct
dd if=/dev/urandom of="$volume" bs=1M oflag=direct status=none 2>/dev/null || true
blockdev --flushbufs "$volume"
fails "the volume is lost" mount_volume "$volume" ro
mount_volume "$kept" ro
contents >now
umount /mnt
same "the snapshot after that" "$(sum before)" "$(sum now)"

# The volume comes back, all of it; then one file that was deleted
restore --backup "$image" --json >restored.json
same "content that passed through the server" 0 "$(fact restored.json server_bytes)"
ntfsfix --no-action "$volume" >fix.out 2>&1 || { cat fix.out; die "ntfsfix"; }
mount_volume "$volume" rw
contents >now
diff before now || die "the restored volume differs"
ok "all files, streams, access lists and times are back: $(wc -l <now)"
rm /mnt/documents/large
unmount_volume
restore --backup "$files" documents/large --json >one.json
matches "one file by the mover" "^[0-9]{7,}$" "$(fact one.json moved_bytes)"
ntfsfix --no-action "$volume" >fix.out 2>&1 || { cat fix.out; die "ntfsfix"; }
mount_volume "$volume" ro
contents >now
# Each file's first line is its access list and times; a folder's times tell that it was written to
same "it and its streams" "$(grep -E 'large(:| [(])' before | sum)" "$(grep -E 'large(:| [(])' now | sum)"
same "the other files" "$(grep -vE "documents$|large" before | sum)" "$(grep -vE "documents$|large" now | sum)"

# GNU tar reads what the mover has written
mt -f "$tape" asf 2
tar -b 512 -tvf "$tape" >list
matches "tar lists a stream" "300000 .* documents/large:stream$" "$(<list)"
mt -f "$tape" asf 2
status=0
tar -b 512 --compare -f "$tape" -C /mnt --exclude='.serverfree*' >compare.out 2>&1 || status=$?
[ $status -le 1 ] || { cat compare.out; die "tar --compare could not read"; }
# Owner and mode are those that the driver makes up for every file; the one that is back is younger
grep -vE ': (Mode|Uid|Gid|Mod time) differs$' compare.out && die "tar --compare"
ok "tar --compare finds the volume on tape: $(wc -l <list) members"
umount /mnt
mt -f "$tape" asf 2
tar -b 512 -xf "$tape" documents/large:stream holes
same "one stream by tar" "$(grep large:stream before | cut -c-64)" "$(sum documents/large:stream)"
same "a file with holes by tar" "$(grep "holes (" before | cut -c-64)" "$(sum holes)"
mt -f "$tape" asf 1
tar -b 512 -xSf "$tape" mission.img
mount_volume mission.img ro
contents >now
umount /mnt
same "the volume of the image that tar has made" "$(sum before)" "$(sum now)"

# The tape against the catalog, and the catalog again from the tape
for backup in "$image" "$files"; do
	host serverfree verify --mover "$mover_url" --tape "$tape_url" --backup "$backup" >verify.out
	matches "verify" "$backup: as written" "$(<verify.out)"
done
host serverfree scan --tape "$tape_url" --catalog "$(host save empty.sqlite)" >scan.out
for backup in "$image" "$files"; do
	matches "scan of the cartridge" "$backup .*" "$(<scan.out)"
done
same "archives on the cartridge" 4 "$(wc -l <scan.out)"
