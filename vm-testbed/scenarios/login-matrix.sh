# title: ten logins with different burst, R2T and segment settings; data written and read in each
# peers: open-iscsi kernel
# target storage: disk d0 size=8MiB
# timeout: 300

iscsiadm -m node -o new -T "$IQN_storage" -p "$PORTAL_storage" >/dev/null
record() { iscsiadm -m node -T "$IQN_storage" -p "$PORTAL_storage" "$@"; }
session=node.session.iscsi connection=node.conn[0].iscsi

# try InitialR2T ImmediateData FirstBurst MaxBurst MaxRecvDataSegment MaxXmitDataSegment
try() {
	local names=("$session.InitialR2T" "$session.ImmediateData" "$session.FirstBurstLength"
		"$session.MaxBurstLength" "$connection.MaxRecvDataSegmentLength"
		"$connection.MaxXmitDataSegmentLength")
	local name
	for name in "${names[@]}"; do
		record -o update -n "$name" -v "$1"
		shift
	done
	record --login >/dev/null
	local disk agreed
	disk=$(disk storage d0)
	head -c 500736 /dev/urandom >pattern
	dd if=pattern of="$disk" bs=250368 oflag=direct status=none
	dd if=pattern of="$disk" bs=512 count=20 oflag=direct status=none
	agreed=$(iscsiadm -m session -P 2 | grep -oE '(InitialR2T|ImmediateData|FirstBurstLength|MaxBurstLength): [A-Za-z0-9]+' | tr '\n' ' ')
	same "$agreed" "$(sum pattern)" "$(head -c 500736 "$disk" | sum)"
	same "on the host" "$(sum pattern)" "$(host sha256 d0 0 500736)"
	record --logout >/dev/null
}

for r2t in Yes No; do
	for immediate in Yes No; do
		try $r2t $immediate 65536 262144 262144 0
		try $r2t $immediate 512 512 512 512
	done
done
try No Yes 4096 16776192 65536 8192
try No Yes 262144 262144 16777215 1048576
