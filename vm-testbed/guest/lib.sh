# Sourced before every scenario (bash -eEuo pipefail). A scenario proves something only through
# `ok`, `same`, `matches` and `fails`: each prints one "ok - ..." line, and a scenario that printed
# none has failed whatever its exit status.

trap 'echo "failed: line $LINENO: $BASH_COMMAND (status $?)"' ERR

say() { echo "# $*"; }
ok() { echo "ok - $*"; }
die() {
	echo "not ok - $*"
	exit 1
}

# same WHAT EXPECTED ACTUAL
same() {
	[ "$2" = "$3" ] || die "$1: expected '$2', got '$3'"
	ok "$1: $3"
}

# matches WHAT EXTENDED-REGEX TEXT: some line of TEXT matches
matches() {
	grep -qE -- "$2" <<<"$3" || {
		sed 's/^/    /' <<<"$3"
		die "$1: nothing matches /$2/"
	}
	local found
	found=$(grep -m1 -oE -- "$2" <<<"$3")
	ok "$1: ${found%%$'\n'*}"
}

# fails WHAT COMMAND...: the command must end with a failure, and not by being missing
fails() {
	local what=$1 status=0
	shift
	command -v "$1" >/dev/null || die "$what: no program $1"
	"$@" >fails.out 2>&1 || status=$?
	[ "$status" -ne 0 ] || die "$what: '$*' succeeded"
	ok "$what: $(tail -n1 fails.out)"
}

# login TARGET: a static node record for $PORTAL_target and $IQN_target, then an open-iscsi session.
# (SendTargets may name an address that the guest cannot reach; the discovery scenario has its own way.)
login() {
	local portal=PORTAL_$1 iqn=IQN_$1
	iscsiadm -m node -o new -T "${!iqn}" -p "${!portal}" >/dev/null
	iscsiadm -m node -T "${!iqn}" -p "${!portal}" --login >/dev/null
	udevadm settle --timeout=30
}

logout() {
	local iqn=IQN_$1
	iscsiadm -m node -T "${!iqn}" --logout >/dev/null
	iscsiadm -m node -T "${!iqn}" -o delete >/dev/null
}

# Host number of the session with TARGET, e.g. 2 of scsi2
scsi_host() {
	local iqn=IQN_$1 session
	for session in /sys/class/iscsi_session/session*; do
		if [ "$(<"$session/targetname")" = "${!iqn}" ]; then
			readlink -f "$session" | grep -oE '/host[0-9]+/' | tr -dc '0-9'
			return
		fi
	done
	die "no session with $1"
}

# unit_path TARGET UNIT: its folder below /sys/class/scsi_device
unit_path() {
	local lun=LUN_$1_$2 address
	address=$(scsi_host "$1"):0:0:${!lun}
	local folder=/sys/class/scsi_device/$address/device
	for _ in $(seq 100); do
		[ -e "$folder" ] && break
		sleep 0.1
	done
	[ -e "$folder" ] || die "the kernel shows no unit $address"
	echo "$folder"
}

# The device nodes of a unit: disk -> /dev/sdX, tape -> /dev/nstN, generic -> /dev/sgN
disk() { echo "/dev/$(_child "$1" "$2" block/sd)"; }
tape() { echo "/dev/$(_child "$1" "$2" scsi_tape/nst)"; }
generic() { echo "/dev/$(_child "$1" "$2" scsi_generic/sg)"; }
_child() {
	local folder
	folder=$(unit_path "$1" "$2")
	for _ in $(seq 100); do
		# nst0 comes with nst0a, nst0l, nst0m (other modes): the shortest name is the plain one
		local found
		found=$(ls -d "$folder/$3"* 2>/dev/null | sort | head -n1)
		if [ -n "$found" ] && [ -e "/dev/${found##*/}" ]; then
			echo "${found##*/}"
			return
		fi
		sleep 0.1
	done
	die "$1/$2 never got a device $3"
}

sum() { sha256sum "$@" | cut -d' ' -f1; }

# bacula_drive TAPE BLOCK-SIZE: rewound, with blocks of any length, and bacula-sd.conf for it
bacula_drive() {
	mt -f "$1" rewind
	mt -f "$1" setblk 0
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
  Archive Device = "$1"
  AutomaticMount = yes
  AlwaysOpen = no
  RemovableMedia = yes
  RandomAccess = no
  Maximum Block Size = $2
}
Messages {
  Name = Standard
  director = dir = all
}
CONF
}

# btape TAPE COMMANDS: what Bacula's btape says of them, as lines
btape() {
	printf "$2" | timeout 300 btape -c "$PWD/bacula-sd.conf" "$1" 2>&1 | tr '\b\r' '  '
}
