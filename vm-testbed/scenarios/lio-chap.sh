# title: our initiator proves itself to the Linux kernel's target (LIO), and has it prove itself: CHAP, digests
# peers: kernel
# timeout: 240

/run/testbed/lio-up 3260 16 zero
group=/sys/kernel/config/target/iscsi/iqn.2003-01.org.linux-iscsi.guest:lio/tpgt_1
alice='opensesame-alice' store='the-target-proof'
printf %s alice >$group/auth/userid
printf %s "$alice" >$group/auth/password
echo 1 >$group/attrib/authentication

zero=$(host lio-url 0)
as() { echo "iscsi://$1@${zero#iscsi://}"; }
fails "no CHAP" host serverfree capacity "$zero"
fails "a wrong secret" host serverfree capacity "$(as "alice%open-barley-please")"
fails "another name" host serverfree capacity "$(as "alyce%$alice")"
good=$(as "alice%$alice")

# try WHAT QUERY: by logins of this kind, the host reads a pattern and writes it elsewhere
copy=$(host save pattern)
try() {
	head -c 1001472 /dev/urandom >pattern
	dd if=pattern of=/tmp/lio/zero conv=notrunc status=none
	host serverfree read "$good?$2" --lba 0 --blocks 1956 "$copy"
	host serverfree write "$good?$2" --lba 5001 --blocks 1956 "$copy"
	same "$1" "$(sum pattern)" "$(dd if=/tmp/lio/zero bs=512 skip=5001 count=1956 status=none | sum)"
}
for algorithm in md5 sha1 sha-256; do
	try "one way, $algorithm" "auth=$algorithm"
done

printf %s store >$group/auth/userid_mutual
printf %s "$store" >$group/auth/password_mutual
proof="target_user=store&target_password=$store"
for digests in "none none" "crc32c none" "none crc32c" "crc32c crc32c"; do
	read -r header data <<<"$digests"
	try "mutual, digests $digests" "$proof&header_digest=$header&data_digest=$data"
done
fails "a target that cannot prove itself" \
	host serverfree capacity "$good?target_user=store&target_password=some-other-proof"
