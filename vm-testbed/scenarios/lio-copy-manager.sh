# title: our initiator drives the Linux kernel's copy manager (LIO) with EXTENDED COPY
# peers: kernel
# timeout: 240

/run/testbed/lio-up 3260 16 source copy
head -c 16777216 /dev/urandom >pattern
dd if=pattern of=/tmp/lio/source conv=notrunc status=none
source=$(host lio-url 0) copy=$(host lio-url 1)
host serverfree xcopy --mover "$source" "$source" "$copy"
sync
same "LIO copied the whole disk by our list" "$(sum pattern)" "$(sum /tmp/lio/copy)"
truncate -s 0 /tmp/lio/copy && truncate -s 16M /tmp/lio/copy
host serverfree xcopy --mover "$source" "$source" "$copy" --skip 100 --seek 2000 --count 4097
same "4097 blocks from 100 to 2000" \
	"$(dd if=pattern bs=512 skip=100 count=4097 status=none | sum)" \
	"$(dd if=/tmp/lio/copy bs=512 skip=2000 count=4097 status=none | sum)"
same "nothing before them" 0 "$(head -c $((2000 * 512)) /tmp/lio/copy | tr -d '\0' | wc -c)"
