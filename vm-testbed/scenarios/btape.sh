# title: btape, Bacula's own test of a drive
# peers: bacula-sd mt-st kernel
# long: yes
# target backup: tape t0 capacity=128MiB
# timeout: 400

login backup
tape=$(tape backup t0)
bacula_drive "$tape" 4096
btape "$tape" 'test\n\nquit\n' >btape.out || true
matches "written and read back" "[0-9]+ blocks re-read correctly" "$(<btape.out)"
same "files read back" 2 "$(grep -c "blocks re-read correctly" btape.out)"
matches "positions after appending" "This is correct!" "$(<btape.out)"
