# title: sg3_utils' disk tools: unmap, write same, compare and write, verify, buffers, logs, ALUA, sanitize
# peers: sg3-utils kernel
# target storage: disk d0 size=16MiB,thin; disk d1 size=8MiB
# timeout: 240

login storage
d0=$(generic storage d0) d1=$(generic storage d1)
block=$(disk storage d0)

dd if=/dev/urandom of=old bs=512 count=1 status=none
dd if=/dev/urandom of=new bs=512 count=1 status=none
cat old new >both

sg_write_same --16 --lba=1000 --num=64 --in=old "$d0"
same "write same" "$(sum old | cut -d' ' -f1)" "$(dd if="$block" bs=512 skip=1063 count=1 iflag=direct status=none | sum | cut -d' ' -f1)"
sg_unmap --force --lba=1000 --num=32 "$d0"
matches "get lba status after unmap" "deallocated" "$(sg_get_lba_status --lba=1000 "$d0")"
matches "get lba status of a full disk" "mapped" "$(sg_get_lba_status --lba=0 "$d1")"

sg_dd if=old of="$d0" bs=512 seek=7 count=1 >/dev/null 2>&1
sg_compare_and_write --in=both --lba=7 --num=1 --xferlen=1024 "$d0"
same "compare and write" "$(sum new | cut -d' ' -f1)" "$(sg_dd if="$d0" of=- bs=512 skip=7 count=1 2>/dev/null | sum | cut -d' ' -f1)"
fails "compare and write of what is not there" sg_compare_and_write --in=both --lba=7 --num=1 --xferlen=1024 "$d0"

sg_verify --lba=0 --count=1024 "$d0"
sg_verify --ndo=512 --in=new --lba=7 --count=1 "$d0"
ok "verify, with and without data"
fails "verify of other data" sg_verify --ndo=512 --in=old --lba=7 --count=1 "$d0"
sg_write_verify --in=old --ilen=512 --lba=9 --num=1 "$d0"
ok "write and verify"

head -c 4096 /dev/urandom >pattern
sg_write_buffer --mode=data --id=0 --offset=0 --length=4096 --in=pattern "$d1"
sg_raw -r 4096 -o back "$d1" 3c 02 00 00 00 00 00 10 00 00 >/dev/null 2>&1
sg_read_buffer --mode=desc --id=0 --length=4 "$d1" >/dev/null
same "write buffer, read buffer" "$(sum pattern | cut -d' ' -f1)" "$(sum back | cut -d' ' -f1)"

sg_logs -a "$d0" >logs
for page in "Write error counter" "Read error counter" "Verify error counter" "Self-test results" "General Statistics"; do
	matches "sg_logs shows: $page" "$page" "$(<logs)"
done
matches "no page was refused" "Supported log pages" "$(<logs)"
sg_senddiag --test "$d0"
sg_opcodes "$d0" >opcodes
matches "sg_opcodes" "Sanitize, overwrite" "$(<opcodes)"
sg_timestamp "$d0"

matches "report target port groups" "target port group id : 0x1" "$(sg_rtpg --decode "$d0")"
sg_stpg --standby "$d0" || true
matches "the group is in standby" "standby" "$(sg_rtpg --decode "$d0")"
fails "a read through a standby port" sg_dd if="$d0" of=/dev/null bs=512 count=1
sg_stpg --active "$d0" || sg_stpg --active "$d0"
sg_turs "$d0" || sg_turs "$d0"
sg_dd if="$d0" of=/dev/null bs=512 count=1 >/dev/null 2>&1
ok "active again"

sg_sanitize --block --wait --quick "$d0"
same "a sanitized disk is empty" 0 "$(dd if="$block" bs=1M iflag=direct status=none | tr -d '\0' | wc -c)"
head -c 1 /dev/zero | tr '\0' '\252' >aa
sg_sanitize --overwrite --pattern=aa --ipl=1 --count=1 --wait --quick "$d1"
same "a disk overwritten by sanitize" 0 "$(sg_dd if="$d1" of=- bs=512 bpt=128 2>/dev/null | tr -d '\252' | wc -c)"
