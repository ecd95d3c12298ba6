# title: btape, Bacula's own test of a drive
# peers: bacula-sd mt-st kernel
# long: yes
# target backup: tape t0 capacity=128MiB
# timeout: 400

login backup
tape=$(tape backup t0)
mt -f "$tape" rewind
mt -f "$tape" setblk 0
cat >bacula-sd.conf <<CONF
Storage {
  Name = sd
  WorkingDirectory = "$PWD"
  Pid Directory = "$PWD"
  SDPort = 9103
}
Director {
  Name = dir
  Password = "x"
}
Device {
  Name = drive
  Media Type = T
  Device Type = Tape
  Archive Device = "$tape"
  AutomaticMount = yes
  AlwaysOpen = no
  RemovableMedia = yes
  RandomAccess = no
  Maximum Block Size = 4096
}
Messages {
  Name = Standard
  director = dir = all
}
CONF
printf 'test\n\nquit\n' | timeout 300 btape -c "$PWD/bacula-sd.conf" "$tape" >btape.out 2>&1 || true
out=$(tr '\b\r' '  ' <btape.out)
matches "written and read back" "[0-9]+ blocks re-read correctly" "$out"
same "files read back" 2 "$(grep -c "blocks re-read correctly" <<<"$out")"
matches "positions after appending" "This is correct!" "$out"
