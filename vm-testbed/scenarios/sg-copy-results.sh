# title: a tape onto a disk by a list that sg_raw sends; sg_copy_results asks everything about it
# peers: sg3-utils kernel
# target storage: disk source size=4MiB fill=random; disk restored size=4MiB
# target backup: tape t0 capacity=64MiB
# mover: storage backup
# timeout: 240

tape=$(host url backup t0)
host serverfree xcopy --mover "$(host mover-url)" "$(host url storage source)" "$tape"
host serverfree tape "$tape" rewind
host serverfree xcopy --dry-run --json --count 8192 "$tape" "$(host url storage restored)" >plan.json
python3 - <<'P'
import json
[command] = json.load(open("plan.json"))["commands"]
open("list", "wb").write(bytes.fromhex(command["parameter_list"]))
open("cdb", "w").write(bytes.fromhex(command["cdb"]).hex(" "))
P
login mover
mover=$(generic mover manager)
sg_turs "$mover" >/dev/null 2>&1 || true
parameters=$(sg_copy_results --params "$mover")
matches "parameters" "[Mm]aximum (CSCD|target) descriptor count: 64" "$parameters"
matches "segments by name" "from block device to stream device" "$parameters"
fails "status of a copy that never was" sg_copy_results --status --list_id=1 "$mover"
# Unquoted: sg_raw takes each byte of the CDB as a word of its own
sg_raw --timeout=120 --send="$(stat -c %s list)" --infile=list "$mover" $(<cdb) >raw.out 2>&1 || {
	cat raw.out
	die "EXTENDED COPY"
}
same "the tape's file is on the disk" "$(host sha256 source)" "$(host sha256 restored)"
matches "details of a copy that went well" "no segment details, response data length 0" \
	"$(sg_copy_results --failed --list_id=1 "$mover" 2>&1)"
matches "held data, of which there is none" "00 00 00 00" \
	"$(sg_copy_results --receive --list_id=1 --hex "$mover" 2>&1)"
matches "copy status" "Operation completed without errors" \
	"$(sg_copy_results --status --list_id=1 "$mover")"
fails "status is told once" sg_copy_results --status --list_id=1 "$mover"
# The tape stands before its filemark now: the same list meets it and fails
fails "the list again" sg_raw --timeout=120 --send="$(stat -c %s list)" --infile=list "$mover" $(<cdb)
matches "status of the failure" "Operation completed with errors" \
	"$(sg_copy_results --status --list_id=1 "$mover")"
details=$(sg_copy_results --failed --list_id=1 "$mover" 2>&1)
matches "status of the failed command" "[Cc]ommand status: 2" "$details"
matches "its sense" "Copy Aborted" "$details"
