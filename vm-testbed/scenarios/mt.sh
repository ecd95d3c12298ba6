# title: every positioning verb of mt on the kernel's tape driver, with the position after each
# peers: mt-st kernel
# target backup: tape t0 capacity=64MiB
# timeout: 240

login backup
tape=$(tape backup t0)
mt() { command mt -f "$tape" "$@"; }
at() { same "$1" "$2" "$(mt tell | grep -oE '[0-9]+')"; }
file_and_block() { matches "$1" "File number=$2, block number=$3" "$(mt status)"; }

mt rewind
matches "status of a loaded tape" "BOT ONLINE" "$(mt status)"
mt setblk 0
matches "variable blocks" "Tape block size 0 bytes" "$(mt status)"

# Layout: 5 blocks, mark, 3 blocks, mark, 2 blocks, two marks (variable blocks of 1000 * n bytes).
# One open file for each tape file: the driver writes the mark when a written tape is closed.
for count in 5 3 2; do
	for n in $(seq "$count"); do
		head -c $((1000 * n)) /dev/urandom >"block.$count.$n"
	done
	for n in $(seq "$count"); do cat "block.$count.$n"; done >"$tape"
done
mt weof 1
at "position after writing" 14

mt rewind
at "rewind" 0
mt fsf 1
at "fsf 1" 6
file_and_block "status after fsf" 1 0
mt fsr 2
at "fsr 2" 8
file_and_block "status after fsr" 1 2
same "the block behind it" "$(sum block.3.3)" "$(dd if="$tape" bs=64k count=1 status=none | sum)"
mt bsr 1
at "bsr 1" 8
mt fsf 1
at "fsf 1 from within a file" 10
mt bsf 1
at "bsf 1" 9
mt bsfm 1
at "bsfm 1" 6
mt seek 3
at "seek 3" 3
same "the block found by seek" "$(sum block.5.4)" "$(dd if="$tape" bs=64k count=1 status=none | sum)"
mt eod
at "eod" 14
matches "eod in status" "EOD" "$(mt status)"
mt seek 0
at "seek 0" 0
mt asf 2
at "asf 2" 10
file_and_block "status after asf" 2 0

# Reading up to a mark ends there; the next read goes on behind it
mt rewind
same "bytes of the first file" 15000 "$(dd if="$tape" bs=64k status=none | wc -c)"
same "bytes of the second file" 6000 "$(dd if="$tape" bs=64k status=none | wc -c)"
mt rewind
fails "fsr over a mark" mt fsr 7
at "position after fsr ran into the mark" 6
mt rewind
fails "bsr before the beginning" mt bsr 1
fails "fsf past the last mark" mt fsf 9
mt rewind
fails "a block longer than the buffer" dd if="$tape" of=/dev/null bs=100 count=1

# Fixed blocks
mt rewind
mt setblk 512
matches "fixed blocks" "Tape block size 512 bytes" "$(mt status)"
head -c 51200 /dev/urandom >fixed
dd if=fixed of="$tape" bs=10240 status=none
at "fixed blocks written" 101
mt rewind
same "fixed blocks read in another size" "$(sum fixed)" "$(dd if="$tape" bs=25600 status=none | sum)"
mt setblk 0
mt rewind
same "one of them as a variable block" 512 "$(dd if="$tape" bs=64k count=1 status=none | wc -c)"

mt rewind
mt erase
mt rewind
mt eod
at "end of data after erase" 0

mt compression 1
mt compression 0
mt eod
mt eject
# O_NONBLOCK: without it the driver waits two minutes for someone to insert a tape
fails "read of an ejected tape" dd if="$tape" of=/dev/null bs=64k count=1 iflag=nonblock
mt load # st hears of it from no unit attention (LTO drives tell other initiators), so it knows no file number
at "position after load" 0
mt rewind
matches "status after load" "BOT ONLINE" "$(mt status)"

# Two partitions: each has its own data and its own end
mt stsetoptions can-partitions
mt mkpartition 20
matches "partitions made" "partition=0" "$(mt status)"
head -c 3000 /dev/urandom >one
head -c 5000 /dev/urandom >two
cat one >"$tape"
mt setpartition 1
matches "the second partition" "partition=1" "$(mt status)"
at "position in it" 0
cat two >"$tape"
mt rewind
same "data of the second partition" "$(sum two)" "$(dd if="$tape" bs=64k count=1 status=none | sum)"
mt setpartition 0
mt rewind
same "data of the first" "$(sum one)" "$(dd if="$tape" bs=64k count=1 status=none | sum)"
mt setpartition 1
mt seek 1
at "a block of the second partition" 1
matches "it is in the second" "partition=1" "$(mt status)"
fails "a partition that there is not" mt setpartition 2
mt setpartition 0
mt rewind
mt mkpartition 0
mt rewind
mt eod
at "one partition again, and empty" 0
