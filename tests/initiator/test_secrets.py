"""Who we are to a target: from URLs, files and the environment, and never shown."""

import pytest

from serverfree.cli.main import main
from serverfree.initiator.secrets import SecretError, login_from_environment, read_secret_file
from serverfree.iscsi.names import InvalidName, Url

SECRET = "opensesame-alice"
PROOF = "the-target-proof"
NAME = "iqn.2026-11.com.example:t"


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\nnotes of mine\n")
    path.chmod(0o400)
    return path


def test_nobody_in_particular():
    login = login_from_environment(environment={})
    assert (login.credentials, login.mutual) == (None, None)


def test_everything_from_the_environment(secret_file):
    login = login_from_environment(
        environment={
            "SERVERFREE_CHAP_USER": "alice",
            "SERVERFREE_CHAP_SECRET_FILE": str(secret_file),
            "SERVERFREE_CHAP_TARGET_USER": "store",
            "SERVERFREE_CHAP_TARGET_SECRET": PROOF,
        }
    )
    assert (login.credentials.name, login.credentials.secret) == ("alice", SECRET.encode())
    assert (login.mutual.name, login.mutual.secret) == ("store", PROOF.encode())


def test_what_a_url_says_comes_first():
    login = login_from_environment(
        "bob",
        PROOF,
        environment={"SERVERFREE_CHAP_USER": "alice", "SERVERFREE_CHAP_SECRET": SECRET},
    )
    assert (login.credentials.name, login.credentials.secret) == ("bob", PROOF.encode())


def test_a_user_in_the_url_may_have_his_secret_in_the_environment():
    login = login_from_environment("bob", environment={"SERVERFREE_CHAP_SECRET": SECRET})
    assert (login.credentials.name, login.credentials.secret) == ("bob", SECRET.encode())


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"USER": "alice"}, "set SERVERFREE_CHAP_SECRET_FILE or SERVERFREE_CHAP_SECRET"),
        ({"USER": "alice", "SECRET": "tooshort"}, "it needs 12 to 256"),
        ({"USER": "alice", "SECRET_FILE": "/nowhere"}, "/nowhere: No such file"),
        ({"TARGET_USER": "store", "TARGET_SECRET": PROOF}, "only to who does so"),
        (
            {"USER": "a", "SECRET": SECRET, "TARGET_USER": "b", "TARGET_SECRET": SECRET},
            "a secret for each direction",
        ),
    ],
)
def test_what_cannot_be_is_said_without_the_secret(environment, said):
    with pytest.raises(SecretError, match=said) as caught:
        login_from_environment(
            environment={f"SERVERFREE_CHAP_{key}": value for key, value in environment.items()}
        )
    assert not any(secret in str(caught.value) for secret in (SECRET, PROOF, "tooshort"))


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o422, 0o777])
def test_a_file_that_others_may_use_is_refused(secret_file, mode):
    secret_file.chmod(mode)
    with pytest.raises(SecretError, match=f"mode {mode:04o}"):
        read_secret_file(secret_file)


def test_the_first_line_is_the_secret(secret_file):
    assert read_secret_file(secret_file) == SECRET.encode()


def test_a_url_with_everything_shows_no_secret():
    text = (
        f"iscsi://alice%{SECRET}@host:3261/{NAME}/4?header_digest=CRC32C&data_digest=none"
        f"&target_user=store&target_password={PROOF}&auth=sha-256"
    )
    url = Url.parse(text)
    assert (url.user, url.password) == ("alice", SECRET)
    assert (url.target_user, url.target_password) == ("store", PROOF)
    assert (url.header_digest, url.data_digest, url.auth) == ("crc32c", "none", "sha-256")
    assert (url.target_name, url.lun) == (NAME, 4)
    for shown in (str(url), repr(url)):
        assert SECRET not in shown
        assert PROOF not in shown
    assert "header_digest=crc32c" in str(url)


@pytest.mark.parametrize(
    "query", ["header_digest=md5", "auth=rot13", "password=x", "header_digest", "x=y"]
)
def test_a_url_option_that_is_none_names_those_there_are(query):
    with pytest.raises(InvalidName, match=r"header_digest=none\|crc32c, ") as caught:
        Url.parse(f"iscsi://alice%{SECRET}@host/{NAME}/0?{query}")
    assert SECRET not in str(caught.value)


def test_commands_show_no_secret_when_they_fail(capfd, monkeypatch):
    monkeypatch.setenv("SERVERFREE_CHAP_SECRET", PROOF)
    assert main(["capacity", f"iscsi://alice%{SECRET}@127.0.0.1:1/{NAME}/0"]) == 1
    with pytest.raises(SystemExit):
        main(["capacity", f"iscsi://alice%{SECRET}@127.0.0.1:1/nonsense/0"])
    said = "".join(capfd.readouterr())
    assert "cannot connect" in said
    assert "nonsense" in said
    assert SECRET not in said
    assert PROOF not in said
