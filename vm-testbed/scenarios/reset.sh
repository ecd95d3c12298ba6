# title: logical unit resets under fio load, from the guest's error handler; the data verifies
# peers: sg3-utils fio kernel
# target storage: disk d0 size=32MiB
# timeout: 240

login storage
disk=$(disk storage d0)
fio --name=load --filename="$disk" --size=8M --rw=randwrite --bs=16k --direct=1 --ioengine=libaio \
	--iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 --rate=,1m --randseed=5 \
	>fio.out 2>&1 &
load=$!
sleep 2
for round in 1 2 3; do
	sg_reset --device --no-escalate "$disk"
	ok "reset $round"
	sleep 1
done
kill -0 $load || { cat fio.out; die "fio did not outlive the resets"; }
wait $load || { cat fio.out; dmesg | tail -n 20; die "fio"; }
matches "fio verified every block" "err= 0" "$(<fio.out)"
matches "the session has lived through it" "iSCSI Session State: LOGGED_IN" "$(iscsiadm -m session -P 3)"
same "I/O errors that the kernel passed on" 0 "$(dmesg | grep -c "I/O error, dev ${disk##*/}" || true)"
