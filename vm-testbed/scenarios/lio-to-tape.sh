# title: our mover copies a LUN of the Linux kernel's target (LIO) to our tape, and back to another
# peers: kernel mt-st
# target backup: tape t0 capacity=64MiB
# mover: guest backup
# timeout: 240

/run/testbed/lio-up 3260 16 source restored
head -c 16777216 /dev/urandom >pattern
dd if=pattern of=/tmp/lio/source conv=notrunc status=none
tape=$(host url backup t0)
host serverfree xcopy --mover "$(host mover-url)" "$(host lio-url 0)" "$tape"
ok "EXTENDED COPY from LIO to tape"
host serverfree tape "$tape" rewind
host serverfree xcopy --mover "$(host mover-url)" "$tape" "$(host lio-url 1)"
sync
same "LIO's LUN restored from tape" "$(sum pattern)" "$(sum /tmp/lio/restored)"
login backup
mt -f "$(tape backup t0)" rewind
same "the tape as the guest reads it" "$(sum pattern)" "$(dd if="$(tape backup t0)" bs=256k status=none | sum)"
