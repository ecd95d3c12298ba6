# title: ddpt's own EXTENDED COPY between two LUNs; compared by hash on the host
# peers: ddpt kernel
# target storage: disk source size=16MiB fill=random; disk copy size=16MiB
# timeout: 240

login storage
source=$(generic storage source) copy=$(generic storage copy)
ddpt --xcopy if="$source" of="$copy" bs=512 count=32768 >ddpt.out 2>&1 || { cat ddpt.out; die ddpt; }
matches "ddpt" "[1-9][0-9]* xcopy command" "$(<ddpt.out)"
same "the whole disk" "$(host sha256 source)" "$(host sha256 copy)"
