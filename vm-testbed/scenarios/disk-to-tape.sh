# title: an EXTENDED COPY list from disk to tape, sent by sg_raw through the kernel; tape read by dd
# peers: sg3-utils mt-st open-iscsi kernel
# target storage: port-in-discovery; disk d0 size=8MiB fill=random
# target backup: port-in-discovery; tape t0 capacity=64MiB
# mover: storage backup
# timeout: 240

# The list names the units by their designators only; the mover finds them at its --reach portals.
host serverfree xcopy --dry-run --json --mover "$(host mover-url)" \
	"$(host url storage d0)" "$(host url backup t0)" >plan.json
python3 - <<'P'
import json
plan = json.load(open("plan.json"))
lists = [bytes.fromhex(command["parameter_list"]) for command in plan["commands"]]
for number, data in enumerate(lists):
    open(f"list.{number}", "wb").write(data)
    cdb = bytearray(16)
    cdb[0] = 0x83
    cdb[10:14] = len(data).to_bytes(4, "big")
    open(f"cdb.{number}", "w").write(cdb.hex(" "))
P
login mover
login backup
mover=$(generic mover manager) tape=$(tape backup t0)
matches "the mover is a processor" "processor" "$(sg_inq "$mover")"
mt -f "$tape" rewind
number=0
while [ -e "list.$number" ]; do
	# Unquoted: sg_raw takes each byte of the CDB as a word of its own
	sg_raw --timeout=120 --send="$(stat -c %s "list.$number")" --infile="list.$number" "$mover" \
		$(<"cdb.$number") >raw.out 2>&1 || { cat raw.out; die "EXTENDED COPY $number"; }
	matches "EXTENDED COPY $number" "SCSI Status: Good" "$(<raw.out)"
	number=$((number + 1))
done
[ "$number" -gt 0 ] || die "the plan holds no command"
mt -f "$tape" rewind
same "the tape holds the disk" "$(host sha256 d0)" "$(dd if="$tape" bs=256k status=none | sum)"
mt -f "$tape" eod
matches "one file on the tape" "File number=1, block number=0" "$(mt -f "$tape" status)"
