# title: sg_xcopy has the target copy one LUN to another; compared by hash on the host
# peers: sg3-utils kernel
# target storage: disk source size=16MiB fill=random; disk copy size=16MiB; disk part size=16MiB
# timeout: 240

login storage
source=$(generic storage source) copy=$(generic storage copy) part=$(generic storage part)
matches "3PC in INQUIRY" "3PC=1" "$(sg_inq "$source")"
matches "operating parameters" "Maximum (CSCD|target) descriptor count: [1-9]|[Mm]aximum target" "$(sg_copy_results --params "$source")"
sg_xcopy if="$source" of="$copy" bs=512 count=32768 >xcopy.out 2>&1 || { cat xcopy.out; die sg_xcopy; }
matches "sg_xcopy" "32768 blocks, [0-9]+ command" "$(<xcopy.out)"
same "the whole disk" "$(host sha256 source)" "$(host sha256 copy)"
sg_xcopy if="$source" of="$part" bs=512 skip=1000 seek=3001 count=5003 >xcopy.out 2>&1 || {
	cat xcopy.out
	die sg_xcopy
}
same "5003 blocks from 1000 to 3001" "$(host sha256 source $((1000 * 512)) $((5003 * 512)))" \
	"$(host sha256 part $((3001 * 512)) $((5003 * 512)))"
same "what lies before them" "$(head -c $((3001 * 512)) /dev/zero | sum)" "$(host sha256 part 0 $((3001 * 512)))"
same "what lies behind them" "$(head -c $(((32768 - 8004) * 512)) /dev/zero | sum)" \
	"$(host sha256 part $((8004 * 512)))"
