# title: our initiator on the Linux kernel's target (LIO): discovery, login, read, write, identify
# peers: kernel
# timeout: 240

/run/testbed/lio-up 3260 16 zero one
head -c 4194304 /dev/urandom >pattern
dd if=pattern of=/tmp/lio/zero conv=notrunc status=none
zero=$(host lio-url 0)
address=${zero#iscsi://}
address=${address%%/*}
matches "our discovery reads LIO's SendTargets" "org.linux-iscsi.guest:lio" "$(host serverfree discover "$address")"
luns=$(host serverfree luns "$zero")
say "$luns"
matches "our REPORT LUNS lists LUN 1" "(^|[^0-9])1([^0-9]|\$)" "$luns"
matches "our INQUIRY reads LIO's vendor" "LIO-ORG" "$(host serverfree inquiry "$zero")"
matches "our INQUIRY reads LIO's designators" "6001405" "$(host serverfree inquiry "$zero" --vpd 0x83)"
matches "our capacity" "16777216|32768" "$(host serverfree capacity "$zero")"
host serverfree read "$zero" --lba 0 --blocks 8192 >back
same "4 MiB read from LIO" "$(sum pattern)" "$(sum back)"
copy=$(host save pattern)
host serverfree read "$zero" --lba 0 --blocks 8192 "$copy"
host serverfree write "$(host lio-url 1)" --lba 1001 --blocks 8192 "$copy"
same "4 MiB written to LIO" "$(sum pattern)" \
	"$(dd if=/tmp/lio/one bs=512 skip=1001 count=8192 status=none | sum)"
fails "a read past LIO's end" host serverfree read "$zero" --lba 32768 --blocks 1
