# title: CHAP one way and mutual, digests; wrong secrets and strangers refused; LUNs of its own, read-only
# peers: open-iscsi kernel
# target storage: disk d0 size=8MiB; disk d1 size=8MiB
# timeout: 300

alice='opensesame-alice' store='the-target-proof'
host secret alice "$alice"
host secret store "$store"
me=$(sed -n 's/^InitiatorName=//p' /etc/iscsi/initiatorname.iscsi)
config=('[account.alice]' 'secret_file = "alice"' 'target_user = "store"'
	'target_secret_file = "store"' '[server]' 'discovery_account = "alice"'
	"advertise = [\"$PORTAL_storage\"]"
	'[[target]]' "iqn = \"$IQN_storage\"" 'account = "alice"'
	'[[target.disk]]' 'name = "d0"' 'path = "d0"'
	'[[target.disk]]' 'name = "d1"' 'path = "d1"')
mapping='luns = [{ lun = 0, unit = "d0" }, { lun = 5, unit = "d1", read_only = true }]'
host configure storage "${config[@]}" '[[target.access]]' "initiator = \"$me\"" "$mapping"

node() { iscsiadm -m node -T "$IQN_storage" -p "$PORTAL_storage" "$@"; }
record() { node -o update -n "$1" -v "$2"; }
session=node.session.auth connection=node.conn[0].iscsi
node -o new >/dev/null

# What iscsiadm says of a login: 24 is its "authorization failure" for statuses 0201 and 0202.
refused() {
	fails "$1" node --login
	matches "$1, by that status" "$2" "$(<fails.out)"
}
refused "no CHAP" "authorization failure"
record $session.authmethod CHAP
record $session.username alice
record $session.password 'open barley, please'
refused "a wrong secret" "authorization failure"
record $session.password "$alice"

# login WHAT: log in, move data, log out
try() {
	node --login >/dev/null
	udevadm settle --timeout=30
	local disk details
	disk=$(disk storage d0)
	details=$(iscsiadm -m session -P 2)
	head -c 1001472 /dev/urandom >pattern
	dd if=pattern of="$disk" bs=250368 oflag=direct status=none
	same "$1" "$(sum pattern)" "$(host sha256 d0 0 1001472)"
	matches "header digest" "HeaderDigest: $2" "$details"
	matches "data digest" "DataDigest: $3" "$details"
	dd if="$disk" of=back bs=250368 count=4 iflag=direct status=none
	same "read back" "$(sum pattern)" "$(sum back)"
}
try "one way" None None
same "LUNs of its own" "0 5" "$(ls -d /sys/class/scsi_device/*/ | sed 's|.*:\([0-9]*\)/$|\1|' | sort -n | xargs)"
LUN_storage_d1=5
same "d1 is read-only" 1 "$(blockdev --getro "$(disk storage d1)")"
same "d0 is not" 0 "$(blockdev --getro "$(disk storage d0)")"
node --logout >/dev/null

record $session.username_in store
record $session.password_in 'some other proof'
fails "a target that cannot prove itself" node --login
record $session.password_in "$store"
for digests in "CRC32C None" "None CRC32C" "CRC32C CRC32C"; do
	read -r header data <<<"$digests"
	record $connection.HeaderDigest "$header"
	record $connection.DataDigest "$data"
	try "mutual, digests $digests" "$header" "$data"
	node --logout >/dev/null
done

cat >>/etc/iscsi/iscsid.conf <<END
discovery.sendtargets.auth.authmethod = CHAP
discovery.sendtargets.auth.username = alice
discovery.sendtargets.auth.password = $alice
END
matches "discovery with CHAP" "$IQN_storage" "$(iscsiadm -m discovery -t sendtargets -p "$PORTAL_storage")"
sed -i '/^discovery.sendtargets.auth/d' /etc/iscsi/iscsid.conf
fails "discovery without" iscsiadm -m discovery -t sendtargets -p "$PORTAL_storage"

node -o delete >/dev/null 2>&1 || true
host configure storage "${config[@]}" '[[target.access]]' 'initiator = "iqn.2026-11.com.example:nobody"'
node -o new >/dev/null
record $session.authmethod CHAP
record $session.username alice
record $session.password "$alice"
refused "an initiator outside the list" "authorization failure"
