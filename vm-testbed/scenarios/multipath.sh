# title: multipath over two portals, one cut and brought back under verified load
# peers: open-iscsi multipath-tools fio kernel
# target storage: disk d0 size=32MiB
# timeout: 300
# alone: yes

first=${PORTAL_storage##*:} second=$(host port)
# serve PORT...: the target at these ports of the host
serve() {
	local portals
	portals=$(printf '"127.0.0.1:%s", ' "$@")
	host configure storage '[server]' "portals = [${portals%, }]" \
		'[[target]]' "iqn = \"$IQN_storage\"" '[[target.disk]]' 'name = "d0"' 'path = "d0"'
}
serve "$first" "$second"
modprobe dm-multipath
cat >/etc/multipath.conf <<'END'
defaults {
	user_friendly_names yes
	find_multipaths no
	polling_interval 1
	no_path_retry queue
	path_grouping_policy multibus
}
END
multipathd
node() { iscsiadm -m node -T "$IQN_storage" -p "10.0.2.2:$1" "${@:2}"; }
for port in "$first" "$second"; do
	node "$port" -o new >/dev/null
	node "$port" -o update -n node.session.timeo.replacement_timeout -v 2
	node "$port" -o update -n 'node.conn[0].timeo.noop_out_interval' -v 1
	node "$port" -o update -n 'node.conn[0].timeo.noop_out_timeout' -v 2
	node "$port" --login >/dev/null
done
udevadm settle --timeout=30
# paths STATE: how many paths are in it
paths() { multipathd show paths format '%d %t %T' | grep -c "$1" || true; }
# await WHAT STATE COUNT
await() {
	for _ in $(seq 120); do
		[ "$(paths "$2")" = "$3" ] && break
		sleep 0.5
	done
	same "$1" "$3" "$(paths "$2")"
}
await "both paths are active" "active ready" 2
map=$(multipathd show maps format '%n' | sed -n 2p | tr -d ' ')
same "one map for one disk" 1 "$(multipathd show maps format '%n' | tail -n +2 | grep -c .)"
same "its size" $((32 << 20)) "$(blockdev --getsize64 "/dev/mapper/$map")"

fio --name=load --filename="/dev/mapper/$map" --size=16M --rw=randwrite --bs=16k --direct=1 \
	--ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 --rate=,512k \
	--randseed=7 >fio.out 2>&1 &
load=$!
sleep 4
serve "$first"
await "one path has failed" "failed" 1
kill -0 $load || { cat fio.out; die "fio did not outlive the cut"; }
serve "$first" "$second"
await "both paths are back" "active ready" 2
kill -0 $load && ok "the load went on through both"
serve "$second"
await "now the other one has failed" "failed" 1
wait $load || { cat fio.out; dmesg | tail -n 20; die "fio"; }
matches "fio verified every block" "err= 0" "$(<fio.out)"
serve "$first" "$second"
await "both paths are back again" "active ready" 2
multipath -F || true
pkill -x multipathd || true
