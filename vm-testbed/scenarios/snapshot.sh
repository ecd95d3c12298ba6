# title: ext4 under a writer: a snapshot between freeze and thaw, one without; both LUNs mounted
# peers: e2fsprogs open-iscsi kernel
# target storage: api; disk data size=24MiB quiet=1; disk copy size=24MiB
# timeout: 240

login storage
data=$(disk storage data)
# Into a file first: a `host` that fails must end the scenario
snapshot() { host serverfree snapshot create data --json "$@" >snapshot.json; }
fact() { python3 -IS -c 'import json, sys; facts = json.load(open("snapshot.json")); print(*map(facts.get, sys.argv[1:]))' "$@"; }
files() { (cd "$1" && find . -type f -exec sha256sum {} + | sort); }
mkfs.ext4 -q -m 0 "$data"
mount "$data" /mnt
cp /usr/lib/python3.11/json/*.py /mnt
head -c 4M /dev/urandom >/mnt/random
sync -f /mnt

# A line of `synced` means that as many lines of `log` are on the disk
python3 -IS - <<'P' &
import os, time
log, synced = (os.open(name, os.O_CREAT | os.O_APPEND | os.O_WRONLY) for name in ("/mnt/log", "synced"))
while True:
    os.write(log, b"a line\n")
    os.fsync(log)
    os.write(synced, b"\n")
    time.sleep(0.1)
P
writer=$!
until [ -s synced ]; do sleep 0.1; done
fails "no quiet period while it writes" snapshot --quiet 3 --timeout 4
matches "why" "no 3 s without a write within 4 s" "$(<fails.out)"

# Frozen the disk is quiet although the writer is at work. Who asks has frozen it: nothing is left
# for a command on the host to do.
fsfreeze --freeze /mnt
files /mnt >frozen.sums
snapshot --name frozen --before true --consistency fs
[ "$(fact consistency)" = fs ] || die "consistency $(fact consistency)"
fsfreeze --unfreeze /mnt
LUN_storage_frozen=$(fact lun)
lines=$(wc -l <synced)
for _ in $(seq 100); do [ "$(wc -l <synced)" -gt "$lines" ] && break || sleep 0.1; done
[ "$(wc -l <synced)" -gt "$lines" ] || die "the writer does not go on"
ok "a snapshot between freeze and thaw at LUN $LUN_storage_frozen; the writer goes on"

synced=$(wc -l <synced)
snapshot --name torn --quiet 0
same "a snapshot that waits for nothing" crash "$(fact consistency)"
LUN_storage_torn=$(fact lun) torn_url=$(fact url)
kill $writer && wait $writer || true

# Both are disks that the kernel finds, and finds to be read-only
iscsiadm -m session --rescan >/dev/null
frozen=$(disk storage frozen) torn=$(disk storage torn)
same "read-only" "1 1" "$(blockdev --getro "$frozen") $(blockdev --getro "$torn")"
fails "writing to a snapshot" dd if=/dev/zero of="$frozen" bs=4096 count=1 oflag=direct
e2fsck -f -n "$frozen" >fsck.out 2>&1 || { cat fsck.out; die "e2fsck of the frozen snapshot"; }
ok "e2fsck finds nothing: $(tail -n1 fsck.out)"
mkdir before
mount -o ro,noload "$frozen" before
same "what was on the file system when it was frozen" "$(sum frozen.sums)" "$(files before | sum)"
umount before

# Unfrozen: the journal holds what has not reached its place. It is replayed on a copy
matches "the journal is needed" "needs_recovery" "$(dumpe2fs -h "$torn" 2>/dev/null)"
fails "mounting it as it is" mount -o ro "$torn" before
host serverfree xcopy --mover "$(host url storage data)" "$torn_url" "$(host url storage copy)" >/dev/null
copy=$(disk storage copy)
blockdev --flushbufs "$copy"
mount "$copy" before
[ "$(wc -l <before/log)" -ge "$synced" ] || die "$(wc -l <before/log) lines, $synced were synced"
ok "$synced lines were on the disk when it was asked for; in the snapshot $(wc -l <before/log)"
same "the other files" "$(grep -v log frozen.sums | sum)" "$(files before | grep -v log | sum)"
umount before
e2fsck -f -n "$copy" >fsck.out 2>&1 || { cat fsck.out; die "e2fsck after recovery"; }
ok "e2fsck finds nothing after recovery: $(tail -n1 fsck.out)"

for name in frozen torn; do host serverfree snapshot delete $name --force >/dev/null; done
same "snapshots left" "[]" "$(host serverfree snapshot list --json)"
fails "a snapshot that is gone" dd if="$frozen" of=/dev/null bs=4096 count=1 iflag=direct
