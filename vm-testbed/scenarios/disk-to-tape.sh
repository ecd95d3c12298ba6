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
for number, command in enumerate(plan["commands"]):
    open(f"list.{number}", "wb").write(bytes.fromhex(command["parameter_list"]))
    open(f"cdb.{number}", "w").write(bytes.fromhex(command["cdb"]).hex(" "))
P
login mover
login backup
mover=$(generic mover manager) tape=$(tape backup t0)
matches "the mover is a processor" "processor" "$(sg_inq "$mover")"
# No driver of the kernel takes a processor, so the unit attention of the new session is still there
matches "the mover's first answer" "reset occurred" "$(sg_turs --verbose "$mover" 2>&1 || true)"
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
matches "one file on the tape" "File number=1," "$(mt -f "$tape" status)"
