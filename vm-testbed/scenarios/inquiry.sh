# title: sg3_utils reads every page, table and list that a disk and a tape offer
# peers: sg3-utils kernel
# target storage: disk d0 size=64MiB,thin; disk big size=32MiB,block=4096; tape t0 capacity=64MiB

login storage
disk=$(generic storage d0) big=$(generic storage big) tape=$(generic storage t0)

for unit in "$disk" "$big" "$tape"; do
	matches "$unit sg_inq vendor" "Vendor identification: SRVFREE" "$(sg_inq "$unit")"
	pages=$(sg_vpd "$unit")
	say "$pages"
	matches "$unit sg_vpd lists device identification" "0x83" "$(sg_vpd --page=sv --long "$unit")"
	all=$(sg_vpd --all "$unit")
	matches "$unit sg_vpd -a has a locally assigned NAA" "^ *0x3[0-9a-f]{15}$" "$all"
	same "$unit has exactly one NAA" 1 "$(sg_vpd --page=di "$unit" | grep -c 'designator type: NAA')"
	matches "$unit sg_luns" "Lun list length = 24" "$(sg_luns "$unit")"
	sg_modes --all "$unit" >modes.out
	ok "$unit sg_modes -a: $(grep -c '^>>' modes.out) pages"
	opcodes=$(sg_opcodes "$unit")
	matches "$unit sg_opcodes lists INQUIRY" "12 +.*Inquiry" "$opcodes"
	matches "$unit sg_opcodes lists REPORT LUNS" "a0 +.*Report luns" "$opcodes"
	sg_turs --number=20 "$unit"
	ok "$unit sg_turs: 20 times ready"
	sg_requests "$unit" >requests.out
	ok "$unit sg_requests"
done

matches "disk block limits" "Maximum unmap LBA count: (-1|[1-9])" "$(sg_vpd --page=bl "$disk")"
matches "disk provisioning" "Unmap command supported \(LBPU\): 1" "$(sg_vpd --page=lbpv "$disk")"
matches "disk characteristics" "Nominal rotation rate|Non-rotating|Medium rotation" "$(sg_vpd --page=bdc "$disk")"
matches "sg_readcap of 512-byte blocks" "Logical block length=512 bytes" "$(sg_readcap --long "$disk")"
matches "sg_readcap of 4096-byte blocks" "Logical block length=4096 bytes" "$(sg_readcap --long "$big")"
matches "last block" "Last LBA=131071 \(0x1ffff\)" "$(sg_readcap --long "$disk")"
same "the kernel's reading of the caching page" "write back" \
	"$(cat "$(unit_path storage d0)"/scsi_disk/*/cache_type)"
matches "tape's device type" "tape" "$(sg_inq "$tape")"
sg_sync "$disk"
ok "sg_sync"
sg_verify --lba=0 --count=64 "$disk"
ok "sg_verify"
sg_unmap --lba=0 --num=128 --force "$disk"
ok "sg_unmap"
sg_write_same --10 --lba=0 --num=64 --xferlen=512 "$disk" </dev/null
ok "sg_write_same of zeros"

# What a unit must refuse, with the sense that the standards name
status=0
sg_raw "$disk" ff 00 00 00 00 00 >refused.out 2>&1 || status=$?
matches "an operation code that is not there" "Invalid command operation code" "$(<refused.out)"
status=0
sg_raw --request=512 "$disk" 28 00 00 02 00 00 00 00 01 00 >refused.out 2>&1 || status=$?
matches "a block past the end" "[Ll]ogical block address out of range|LBA out of range" "$(<refused.out)"
