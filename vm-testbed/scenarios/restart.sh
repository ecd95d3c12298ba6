# title: the target restarted, then killed, under fio load: the session recovers, the data verifies
# peers: open-iscsi fio kernel
# target storage: disk d0 size=32MiB
# timeout: 300

login storage
disk=$(disk storage d0)
# Two rounds of 8 s of writing, each followed by reading every block back and checking it; the
# restart falls into the first, the kill into the second.
fio --name=load --filename="$disk" --size=12M --rw=randwrite --bs=16k --direct=1 --ioengine=libaio \
	--iodepth=4 --verify=crc32c --verify_fatal=1 --do_verify=1 --loops=2 --rate=,1500k \
	--randseed=11 >fio.out 2>&1 &
load=$!
sleep 3
host restart storage
ok "target stopped cleanly and started at the same portal"
kill -0 $load || { cat fio.out; die "fio did not outlive the restart"; }
sleep 8
host kill storage
ok "target killed and started at the same portal"
wait $load || { cat fio.out; dmesg | tail -n 20; die "fio"; }
matches "fio verified every block" "err= 0" "$(<fio.out)"
matches "one session, logged in again" "iSCSI Session State: LOGGED_IN" "$(iscsiadm -m session -P 3)"
same "I/O errors that the kernel passed on" 0 "$(dmesg | grep -c "I/O error, dev ${disk##*/}" || true)"
same "host and guest see the same bytes" "$(host sha256 d0)" "$(dd if="$disk" bs=1M iflag=direct status=none | sum)"
