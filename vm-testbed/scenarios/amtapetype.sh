# title: amtapetype, Amanda's measuring of a tape: files found by number, capacity, filemarks
# peers: amanda-server mt-st kernel
# long: yes
# target backup: tape t0 capacity=24MiB
# timeout: 400

login backup
tape=$(tape backup t0)
mt -f "$tape" rewind
mt -f "$tape" setblk 0
# It would write for a minute, twice, to see whether zeros go faster: two seconds fit on the tape.
sed 's/compression_check_time = 60/compression_check_time = 2/' /usr/sbin/amtapetype >amtapetype
grep -q "compression_check_time = 2;" amtapetype || die "another amtapetype"
timeout 350 perl -I/usr/lib/x86_64-linux-gnu/amanda/perl amtapetype -f -b 65536 -t SMALL "$tape" >type.out 2>&1 ||
	{ cat type.out; die "amtapetype"; }
type=$(tr '\r' '\n' <type.out)
matches "length" "length [0-9.]+ kbytes" "$type"
# 24 MiB less a sixteenth, from which on early warning is given.
kbytes=$(grep -oE "length [0-9]+" <<<"$type" | tr -dc 0-9)
[ "$kbytes" -gt 22500 ] && [ "$kbytes" -le 23104 ] || die "a length of $kbytes KiB"
ok "up to early warning: $kbytes KiB"
matches "a filemark" "filemark [0-9.]+ kbytes" "$type"
