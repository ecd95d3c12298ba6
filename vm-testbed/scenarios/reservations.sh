# title: sg_persist from two hosts: fencing, and a reservation that outlives the target's death
# peers: sg3-utils kernel open-iscsi
# target storage: disk d0 size=8MiB; disk bad size=8MiB,bad=4096-4103
# timeout: 240

login storage
d0=$(generic storage d0)
block=$(disk storage d0)

# A second host: the same guest under another initiator name, by an interface record of its own.
iscsiadm -m iface -I second -o new >/dev/null
iscsiadm -m iface -I second -o update -n iface.initiatorname -v iqn.2026-11.com.example:second >/dev/null
before=$(ls /dev/sg*)
iscsiadm -m node -T "$IQN_storage" -p "$PORTAL_storage" -I second -o new >/dev/null
iscsiadm -m node -T "$IQN_storage" -p "$PORTAL_storage" -I second --login >/dev/null
udevadm settle 2>/dev/null || sleep 2
other=
for one in /dev/sg*; do
	case " ${before//$'\n'/ } " in *" $one "*) continue ;; esac
	[ "$(sg_inq --page=sn --raw "$one" | tail -c 16)" = "$(sg_inq --page=sn --raw "$d0" | tail -c 16)" ] && other=$one
done
[ -n "$other" ] || die "the second session shows no disk"
ok "two sessions of two initiators: $d0 and $other"

sg_turs "$d0" || true
sg_turs "$other" || true
sg_persist --out --register --param-sark=0xaaa --param-aptpl "$d0" >/dev/null
sg_persist --out --register --param-sark=0xbbb --param-aptpl "$other" >/dev/null
sg_persist --out --reserve --param-rk=0xaaa --prout-type=5 "$d0" >/dev/null
matches "read keys" "0xbbb" "$(sg_persist --in --read-keys "$d0")"
matches "read reservation" "Write Exclusive, registrants only" "$(sg_persist --in --read-reservation "$d0")"
matches "read full status" "iqn.2026-11.com.example:second" "$(sg_persist --in --read-full-status "$d0")"
matches "report capabilities" "PTPL_A.*1" "$(sg_persist --in --report-capabilities "$d0")"
sg_dd if=/dev/zero of="$other" bs=512 count=1 >/dev/null 2>&1
ok "a registered host may write"

sg_persist --out --preempt-abort --param-rk=0xaaa --param-sark=0xbbb --prout-type=5 "$d0" >/dev/null
fails "a fenced host may not write" sg_dd if=/dev/zero of="$other" bs=512 count=1
fails "nor once more" sg_dd if=/dev/zero of="$other" bs=512 count=1
sg_dd if="$other" of=/dev/null bs=512 count=1 >/dev/null 2>&1
ok "it may read"

host kill storage
for try in $(seq 30); do
	sg_turs "$d0" >/dev/null 2>&1 && sg_turs "$other" >/dev/null 2>&1 && break
	sleep 1
done
matches "the reservation outlives kill -9" "Key=0xaaa" "$(sg_persist --in --read-reservation "$d0")"
fails "the fenced host is still fenced" sg_dd if=/dev/zero of="$other" bs=512 count=1
dd if=/dev/urandom of="$block" bs=4k count=1 oflag=direct status=none
ok "the holder still writes"
sg_persist --out --clear --param-rk=0xaaa "$d0" >/dev/null
iscsiadm -m node -T "$IQN_storage" -p "$PORTAL_storage" -I second --logout >/dev/null

bad=$(disk storage bad)
fails "a read of bad blocks" dd if="$bad" of=/dev/null bs=4k skip=512 count=1 iflag=direct
matches "the kernel names the error" "Unrecovered read error" "$(dmesg | tail -n 30)"
matches "and the sector" "sector 4096" "$(dmesg | tail -n 30)"
dd if=/dev/zero of="$bad" bs=4k seek=512 count=1 oflag=direct status=none
dd if="$bad" of=/dev/null bs=4k skip=512 count=1 iflag=direct status=none
ok "a write makes them good"
