# title: SendTargets discovery, login by the discovered record, logout, login again
# peers: open-iscsi lsscsi kernel
# target storage: port-in-discovery; disk d0 size=16MiB; disk d1 size=32MiB,block=4096; tape t0 capacity=64MiB

found=$(iscsiadm -m discovery -t sendtargets -p "$PORTAL_storage")
matches "SendTargets names the target at the announced portal" "^$PORTAL_storage,1 $IQN_storage\$" "$found"

iscsiadm -m node -T "$IQN_storage" --login
udevadm settle --timeout=30
details=$(iscsiadm -m session -P 3)
matches "session state" "iSCSI Session State: LOGGED_IN" "$details"
matches "negotiated digest" "HeaderDigest: None" "$details"

seen=$(lsscsi -g)
say "$seen"
same "units that the kernel found" 3 "$(grep -c SRVFREE <<<"$seen")"
same "disks among them" 2 "$(grep -c ' disk ' <<<"$seen")"
same "tapes among them" 1 "$(grep -c ' tape ' <<<"$seen")"
same "bytes of d0" $((16 << 20)) "$(blockdev --getsize64 "$(disk storage d0)")"
same "bytes of d1" $((32 << 20)) "$(blockdev --getsize64 "$(disk storage d1)")"
same "logical block of d1" 4096 "$(blockdev --getss "$(disk storage d1)")"

iscsiadm -m session --rescan >/dev/null
same "units after a rescan" 3 "$(lsscsi | grep -c SRVFREE)"

for round in 1 2 3; do
	iscsiadm -m node -T "$IQN_storage" --logout >/dev/null
	same "units after logout $round" 0 "$(lsscsi | grep -c SRVFREE || true)"
	iscsiadm -m node -T "$IQN_storage" --login >/dev/null
	disk storage d0 >/dev/null
	ok "login $round"
done

iscsiadm -m node -o new -T "$IQN_storage.nobody" -p "$PORTAL_storage" >/dev/null
fails "login to a name that is not served" \
	iscsiadm -m node -T "$IQN_storage.nobody" -p "$PORTAL_storage" --login
matches "for that reason" "non-retryable iSCSI login failure" "$(<fails.out)"
