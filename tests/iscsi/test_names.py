import pytest

from serverfree.iscsi.names import (
    DiscoveredTarget,
    InvalidName,
    Portal,
    Url,
    initiator_port_name,
    normalize_name,
    parse_send_targets,
    send_targets_pairs,
    target_port_name,
)

IQN = "iqn.2026-11.com.example:storage"


@pytest.mark.parametrize(
    "name",
    [
        "iqn.2001-04.com.example",
        "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
        "iqn.1991-05.com.microsoft:host_1",
        "eui.02004567a425678d",
        "naa.52004567ba64678d",
        "naa.62004567ba64678d0123456789abcdef",
        "iqn.2001-04.com.example:m\u00fcller",
    ],
)
def test_names_of_every_form_are_taken_as_they_are(name):
    assert normalize_name(name) == name


def test_names_are_compared_in_lower_case():
    assert normalize_name("iqn.2001-04.COM.Example:Disk") == "iqn.2001-04.com.example:disk"
    assert normalize_name("EUI.02004567A425678D") == "eui.02004567a425678d"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "disk",
        "iqn.2001-13.com.example",
        "iqn.2001-4.com.example",
        "iqn.2001-04.",
        "iqn.2001-04.com.example:a b",
        "iqn.2001-04.com.example:a/b",
        "iqn.2001-04.com.example:a\x00b",
        "eui.02004567a425678",
        "naa.0123",
        "iqn.2001-04.com.example:" + "x" * 200,
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidName):
        normalize_name(name)


def test_port_names_of_rfc_7143_4_4_2():
    assert initiator_port_name(IQN, bytes.fromhex("8012ab340001")) == f"{IQN},i,0x8012ab340001"
    assert target_port_name(IQN, 1) == f"{IQN},t,0x0001"


@pytest.mark.parametrize(
    ("text", "portal", "written"),
    [
        ("127.0.0.1:3261", Portal("127.0.0.1", 3261), "127.0.0.1:3261"),
        ("host", Portal("host", 3260), "host:3260"),
        ("[::1]:860,7", Portal("::1", 860, 7), "[::1]:860"),
        ("[fe80::1]", Portal("fe80::1", 3260), "[fe80::1]:3260"),
        ("h:0,65535", Portal("h", 0, 65535), "h:0"),
    ],
)
def test_portals(text, portal, written):
    assert Portal.parse(text) == portal
    assert str(portal) == written


@pytest.mark.parametrize(
    "text", ["", ":3260", "h:", "h:x", "h:65536", "::1", "[::1", "[::1]x", "[h]:1", "h:1,", "h:1,x"]
)
def test_what_is_no_portal_is_refused(text):
    with pytest.raises(InvalidName):
        Portal.parse(text)


def test_send_targets_of_appendix_c_reads_and_writes_alike():
    targets = [
        DiscoveredTarget("iqn.1993-11.com.example:diskarray.sn.8675309", ()),
        DiscoveredTarget(IQN, (Portal("10.1.0.45", 5300, 1), Portal("::1", 3260, 2))),
    ]
    pairs = send_targets_pairs(targets)
    assert pairs == [
        ("TargetName", "iqn.1993-11.com.example:diskarray.sn.8675309"),
        ("TargetName", IQN),
        ("TargetAddress", "10.1.0.45:5300,1"),
        ("TargetAddress", "[::1]:3260,2"),
    ]
    assert parse_send_targets(pairs) == targets


def test_an_address_before_any_name_is_refused():
    with pytest.raises(InvalidName):
        parse_send_targets([("TargetAddress", "h:1,1")])


def test_url_with_everything():
    url = Url.parse(f"iscsi://jo%se%2Fcret@[::1]:3261/{IQN}/7")
    assert (url.user, url.password) == ("jo", "se/cret")
    assert (url.host, url.port, url.target_name, url.lun) == ("::1", 3261, IQN, 7)


def test_url_never_shows_its_password():
    url = Url.parse(f"iscsi://jo%secret@h/{IQN}/0")
    assert "secret" not in str(url)
    assert "secret" not in repr(url)
    assert str(url) == f"iscsi://jo@h:3260/{IQN}/0"


def test_url_may_name_the_target_only():
    assert Url.parse(f"iscsi://h/{IQN}").lun is None


@pytest.mark.parametrize(
    "text",
    [
        "http://h/" + IQN,
        "iscsi://h",
        "iscsi://h/notaname/0",
        f"iscsi://h/{IQN}/x",
        f"iscsi://h/{IQN}/16384",
        f"iscsi://h/{IQN}/0/1",
        f"iscsi:///{IQN}/0",
    ],
)
def test_what_is_no_url_is_refused(text):
    with pytest.raises(InvalidName):
        Url.parse(text)


def test_a_bad_url_does_not_repeat_the_password():
    with pytest.raises(InvalidName) as caught:
        Url.parse("iscsi://jo%secret@h/nope/x")
    assert "secret" not in str(caught.value)
