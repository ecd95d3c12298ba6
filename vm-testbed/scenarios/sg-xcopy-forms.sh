# title: sg_xcopy by way of the source and of the destination, several bpt, skip and seek, blocks of 512 and 4096
# peers: sg3-utils kernel
# target storage: disk small size=4MiB fill=random; disk smallcopy size=4MiB; disk large size=4MiB block=4096 fill=random; disk largecopy size=4MiB block=4096
# timeout: 240

login storage
# SOURCE COPY BLOCK BPT SKIP SEEK COUNT, and whose copy manager is asked
copy() {
	local from=$1 to=$2 block=$3 bpt=$4 skip=$5 seek=$6 count=$7 by=$8
	env "$by=1" sg_xcopy if="$(generic storage "$from")" of="$(generic storage "$to")" bs="$block" \
		bpt="$bpt" skip="$skip" seek="$seek" count="$count" >xcopy.out 2>&1 || {
		cat xcopy.out
		die "sg_xcopy $*"
	}
	same "$by bs=$block bpt=$bpt skip=$skip seek=$seek count=$count" \
		"$(host sha256 "$from" $((skip * block)) $((count * block)))" \
		"$(host sha256 "$to" $((seek * block)) $((count * block)))"
}
copy small smallcopy 512 128 0 0 8192 XCOPY_TO_SRC
copy small smallcopy 512 777 1001 13 5003 XCOPY_TO_DST
copy small smallcopy 512 1 7 8190 2 XCOPY_TO_SRC
copy large largecopy 4096 64 0 0 1024 XCOPY_TO_DST
copy large largecopy 4096 33 101 1 777 XCOPY_TO_SRC
