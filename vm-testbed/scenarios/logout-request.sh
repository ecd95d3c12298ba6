# title: a target that stops asks for logout; open-iscsi obeys, and comes back when it is there again
# peers: open-iscsi fio kernel
# target storage: disk d0 size=16MiB
# timeout: 180

# What iscsid has to say, it says to syslog.
python3 - <<'PYTHON' &
import os, socket
os.path.exists("/dev/log") and os.unlink("/dev/log")
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
with open("syslog", "ab", buffering=0) as lines:
    while True:
        lines.write(log.recv(65536).rstrip(b"\0\n") + b"\n")
PYTHON
syslog=$!
trap 'kill $syslog' EXIT

login storage
disk=$(disk storage d0)
fio --name=load --filename="$disk" --size=4M --rw=randwrite --bs=16k --direct=1 --ioengine=libaio \
	--iodepth=4 --verify=crc32c --verify_fatal=1 --do_verify=1 --rate=,1m --randseed=3 >fio.out 2>&1 &
load=$!
sleep 2
host restart storage
wait $load || { cat fio.out syslog; dmesg | tail -n 20; die "fio"; }
matches "iscsid was asked" "Target requests logout within [0-9]+ seconds" "$(<syslog)"
matches "fio verified every block" "err= 0" "$(<fio.out)"
matches "logged in again" "iSCSI Session State: LOGGED_IN" "$(iscsiadm -m session -P 3)"
same "I/O errors that the kernel passed on" 0 "$(dmesg | grep -c "I/O error, dev ${disk##*/}" || true)"
# Whether it was logged out before the target stopped waiting is a matter of the guest's speed: said,
# not judged.
say "connections that the target had to close: $(dmesg | grep -c "detected conn error" || true)"
