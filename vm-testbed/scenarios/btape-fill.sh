# title: btape fill: Bacula fills a cartridge to its end and reads it back
# peers: bacula-sd mt-st kernel
# long: yes
# target backup: tape t0 capacity=64MiB
# timeout: 600

login backup
tape=$(tape backup t0)
bacula_drive "$tape" 65536
# s: the simple test, with one cartridge. At its end btape 9.6.7 goes on writing to a device that it
# knows to be full and has its job canceled for that, so another process reads the blocks, each of
# which bears a checksum; that one then wants a second cartridge and is given none.
run() { btape "$tape" "$1" | grep -v "Orphaned buffer"; }
run 'fill\ns\n\nquit\n' >fill.out || true
matches "filled" "End of Volume .* at 1:[0-9]{3} .* Write of 65536 bytes got -1" "$(<fill.out)"
matches "last block, at once" "Re-read of last block succeeded" "$(<fill.out)"
blocks=$(grep -oE "at 1:[0-9]+ on device" fill.out | head -n1 | grep -oE ":[0-9]+" | tr -d :)
run 'unfill\n\nquit\n' >unfill.out || true
matches "all blocks, later" "Read block=$blocks," "$(<unfill.out)"
matches "up to the end" 'End of Volume "TestVolume1" [0-9]+ records' "$(<unfill.out)"
