# title: GNU tar writes, compares and extracts archives in blockings 20, 128 and 512 on one tape
# peers: tar mt-st kernel
# target backup: tape t0 capacity=128MiB
# timeout: 300

login backup
tape=$(tape backup t0)
mt -f "$tape" rewind
mt -f "$tape" setblk 0
mkdir tree
cp -r /usr/lib/python3.11/asyncio /usr/lib/python3.11/json tree
dd if=/dev/urandom of=tree/random bs=1000 count=2500 status=none
truncate -s 3M tree/holes
ln tree/random tree/hard
ln -s random tree/soft
content() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sum); }
before=$(content tree)

for blocking in 20 128 512; do
	tar --sparse -b "$blocking" -cf "$tape" tree
	ok "written in blocking $blocking; tape at $(mt -f "$tape" tell)"
done
mt -f "$tape" rewind
file=0
for blocking in 20 128 512; do
	tar -b "$blocking" --compare -f "$tape"
	ok "tar --compare in blocking $blocking"
	file=$((file + 1))
	mt -f "$tape" asf "$file"
done
file=2
for blocking in 512 128 20; do
	mt -f "$tape" asf "$file"
	mkdir "out.$blocking"
	tar -b "$blocking" -xf "$tape" -C "out.$blocking"
	same "extracted in blocking $blocking" "$before" "$(content "out.$blocking/tree")"
	rm -r "out.$blocking"
	file=$((file - 1))
done

# Appending: the second archive is overwritten, the third is gone with it, the first is untouched
mt -f "$tape" asf 1
tar -b 128 -cf "$tape" tree/asyncio
mt -f "$tape" rewind
tar -b 20 --compare -f "$tape"
ok "the first archive after the second was overwritten"
mt -f "$tape" asf 1
same "members of the new second archive" "$(find tree/asyncio | wc -l)" "$(tar -b 128 -tf "$tape" | wc -l)"
mt -f "$tape" eod
matches "the tape ends behind it" "File number=2" "$(mt -f "$tape" status)"
