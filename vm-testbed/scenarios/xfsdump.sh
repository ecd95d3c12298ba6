# title: xfsdump to a tape and xfsrestore from it, a second session behind the first
# peers: xfsdump xfsprogs mt-st kernel
# target storage: disk d0 size=320MiB,thin
# target backup: tape t0 capacity=128MiB
# timeout: 300

login storage
login backup
disk=$(disk storage d0) tape=$(tape backup t0)
modprobe xfs
ln -sf /proc/self/mounts /etc/mtab # xfsdump looks there, and no one has made it
mkfs.xfs -q "$disk"
mount "$disk" /mnt
cp -r /usr/lib/python3.11/asyncio /mnt
dd if=/dev/urandom of=/mnt/random bs=64k count=64 status=none
content() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sum); }
first=$(content /mnt)

mt -f "$tape" rewind
mt -f "$tape" setblk 0
dump() { # LEVEL LABEL OPTION...
	local level=$1 label=$2
	shift 2
	xfsdump -l "$level" -b 262144 -f "$tape" -L "$label" -M cartridge -F "$@" /mnt >dump.out 2>&1 || {
		cat dump.out
		die "xfsdump $label"
	}
	matches "session $label" "Dump Status: SUCCESS" "$(<dump.out)"
}
dump 0 full -o
echo more >/mnt/more
dd if=/dev/urandom of=/mnt/random bs=64k count=8 conv=notrunc status=none
second=$(content /mnt)
dump 1 increment
umount /mnt

restore() { # LABEL FOLDER OPTION...
	mt -f "$tape" rewind
	xfsrestore -b 262144 -f "$tape" -L "$1" -F "${@:3}" "$2" >restore.out 2>&1 || {
		cat restore.out
		die "xfsrestore $1"
	}
}
mkdir back
restore full back -r
rm -rf back/xfsrestorehousekeepingdir.saved
same "the files of the first session" "$first" "$(cd back && find . -name xfsrestorehousekeepingdir -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sum)"
restore increment back -r
same "and with the second" "$second" "$(cd back && find . -name xfsrestorehousekeepingdir -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sum)"
