# title: tar fills one cartridge and goes on with another; cartridges are checked, exported, imported
# peers: tar mt-st kernel
# target backup: tape t0 capacity=4MiB
# timeout: 240

login backup
tape=$(tape backup t0)
slot=$(host save t0) other=$(host save second)
host serverfree cartridge create "$other" --capacity 4MiB >/dev/null
mkdir tree
for n in 1 2 3 4; do head -c 1500000 /dev/urandom >"tree/$n"; done
cat >change <<CHANGE
#!/bin/bash
set -e
mt -f "$tape" offline
host serverfree cartridge exchange "$slot" "$other"
mt -f "$tape" load
mt -f "$tape" setblk 0
CHANGE
chmod +x change
mt -f "$tape" setblk 0
tar -M -b 64 -F "$PWD/change" -cf "$tape" tree
ok "written over two cartridges"
"$PWD/change" # the first one is in again
mkdir out
tar -M -b 64 -F "$PWD/change" -xf "$tape" -C out
same "the files that came back" "$(cd tree && sha256sum ./*)" "$(cd out/tree && sha256sum ./*)"

mt -f "$tape" offline
same "check of the second cartridge" sound "$(host serverfree cartridge check "$slot")"
matches "it holds the rest" "objects [0-9]{2}" "$(host serverfree cartridge info "$slot")"
image=$(host save image.tap) copy=$(host save copy)
host serverfree cartridge export "$slot" "$image" >export.out
host serverfree cartridge import "$image" "$copy" >import.out
same "blocks out and in" "$(head -n1 export.out)" "$(head -n1 import.out)"
