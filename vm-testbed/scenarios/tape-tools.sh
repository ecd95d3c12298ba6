# title: sg_read_attr, sg_logs, sg_vpd, tapeinfo and stenc read and set what a tape drive has
# peers: sg3-utils mtx stenc mt-st kernel
# target backup: tape t0 capacity=64MiB
# timeout: 240

login backup
tape=$(tape backup t0) sg=$(generic backup t0)
mt -f "$tape" rewind
mt -f "$tape" setblk 0
dd if=/dev/urandom of="$tape" bs=256k count=8 status=none
dd if="$tape" of=/dev/null bs=256k count=1 status=none || true

attributes=$(sg_read_attr "$sg")
matches "capacity left" "Remaining capacity in partition \[MiB\]: 61" "$attributes"
matches "loads" "Load count: 1" "$attributes"
matches "serial number" "Medium serial number: [0-9A-F]{32}" "$attributes"
matches "written" "Total MiB written in medium life: 2" "$attributes"
matches "partitions" "Number of partitions available: 1" "$(sg_read_attr --sa=3 "$sg")"

logs=$(sg_logs -a "$sg")
matches "write page" "Total bytes processed = 2097152" "$logs"
matches "sequential access page" "Data bytes received with WRITE commands: 0 GB" "$logs"
matches "volume statistics" "Lifetime megabytes written: 2" "$logs"
matches "TapeAlert" "Hard error: 0" "$(sg_logs -p 0x2e "$sg")"
matches "compression page" "Megabytes transferred from server: 2" "$logs"

matches "WORM capability" "WORM=1" "$(sg_vpd -p sad "$sg")"
matches "block protection" "method: 2, info_len: 4, LBP_W_C=1, LBP_R_C=1" "$(sg_vpd -p lbpro "$sg")"
matches "compression by mtx" "DataCompCapable: yes" "$(tapeinfo -f "$sg")"
matches "readiness by mtx" "Ready: yes" "$(tapeinfo -f "$sg")"

# Encryption: on, a block, off, the block cannot be read, on again with the key
mt -f "$tape" rewind
seq -f %02g 10 41 | tr -d '\n' | cut -c1-64 >key
echo "the key of this test" >>key
stenc -f "$sg" -e on -k key -a 1 --ckod >stenc.out 2>&1 || { cat stenc.out; die "stenc on"; }
detail=$(stenc -f "$sg" --detail 2>&1)
matches "drive encrypts" "Drive Encryption: +on" "$detail"
matches "reads decrypted" "Drive Output: +Decrypting" "$detail"
matches "writes encrypted" "Drive Input: +Encrypting" "$detail"
head -c 100000 /dev/urandom >secret
dd if=secret of="$tape" bs=100000 status=none
mt -f "$tape" rewind
matches "the next block" "Volume Encryption: +Encrypted and able to decrypt" "$(stenc -f "$sg" --detail 2>&1)"
stenc -f "$sg" -e off -a 1 >stenc.out 2>&1 || { cat stenc.out; die "stenc off"; }
fails "a read without the key" dd if="$tape" of=/dev/null bs=100000 count=1
mt -f "$tape" rewind
stenc -f "$sg" -e on -k key -a 1 >stenc.out 2>&1 || { cat stenc.out; die "stenc on again"; }
same "with it" "$(sum secret)" "$(dd if="$tape" bs=100000 count=1 status=none | sum)"
mt -f "$tape" rewind
