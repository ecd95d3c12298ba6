# title: ROD tokens: POPULATE TOKEN and WRITE USING TOKEN by sg_raw, read back by ddptctl and sg_vpd
# peers: ddpt sg3-utils kernel
# target storage: disk source size=16MiB fill=random; disk copy size=16MiB
# timeout: 240

# ddpt's own odx jobs (0.97) put each range descriptor one byte early (pl + 15 and pl + 535), so no
# target can do what they mean: the lists are built here, and ddptctl reads the answers.

login storage
source=$(generic storage source) copy=$(generic storage copy)

page=$(sg_vpd --page=tpc "$source")
matches "limits of tokens" "Maximum range descriptors: 1024" "$page"
matches "commands" "Write using token" "$page"
matches "a type of ROD" "point in time copy - persistent" "$page"

bytes() { printf "$(sed 's/ //g; s/../\\x&/g' <<<"$1")"; }
be() { printf "%0$(($1 * 2))x" "$2"; }
range() { echo "$(be 8 "$1")$(be 4 "$2")00000000"; }

# populate ROD-TYPE RANGE: 16 bytes of header with RTV=1, one range
populate() {
	bytes "$(be 2 30)0200$(be 4 600)$1$(be 2 0)$(be 2 16)$2" >populate.bin
	sg_raw -s 32 -i populate.bin "$source" 83 10 00 00 00 00 00 00 01 01 00 00 00 20 00 00 >raw.out 2>&1 ||
		{ cat raw.out; die "POPULATE TOKEN"; }
	ddptctl --receive --list_id=257 --rtf=token.bin "$source" >receive.out 2>&1 || { cat receive.out; die "ddptctl"; }
	ok "POPULATE TOKEN of type $1"
}

# use RANGE: 536 bytes with the token, one range
use() {
	{
		bytes "$(be 2 550)000000000000$(be 8 0)"
		cat token.bin
		bytes "000000000000$(be 2 16)$1"
	} >use.bin
	sg_raw -s 552 -i use.bin "$copy" 83 11 00 00 00 00 00 00 01 02 00 00 02 28 00 00
}

before=$(host sha256 source)
populate 00800002 "$(range 0 32768)"
same "bytes of the token" 512 "$(stat -c %s token.bin)"
matches "the token" "point in time copy - persistent" "$(ddptctl --info --rtf=token.bin)"
matches "what it represents" "Number of bytes represented: 16777216" "$(ddptctl --info --rtf=token.bin)"
matches "all tokens" "point in time copy - persistent" "$(ddptctl --all_toks "$source" 2>&1)"
dd if=/dev/zero of="$(disk storage source)" bs=1M count=4 conv=fsync oflag=direct status=none
use "$(range 0 32768)" >raw.out 2>&1 || { cat raw.out; die "WRITE USING TOKEN"; }
same "the disk as it was when the token was made" "$before" "$(host sha256 copy)"

populate 00800001 "$(range 0 64)"
dd if=/dev/zero of="$(disk storage source)" bs=4096 count=1 seek=1 conv=fsync oflag=direct status=none
fails "a token of what has changed since" use "$(range 0 64)"
matches "why" "[Tt]oken cancelled" "$(<fails.out)"
