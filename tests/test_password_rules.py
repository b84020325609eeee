"""What a new password must be: which are refused and why, which are not, what judging costs, and how it is kept."""

import asyncio
import json
import random
import re
import secrets
import string
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib.hash import argon2
from prometheus_client import REGISTRY

from auth_service.accounts.passwords import PasswordHasher
from auth_service.accounts.predictability import weakness
from tests.support.admin import administrator
from tests.support.command import command
from tests.support.service import PASSWORD, Service, Start, problem

_KNOWN = {"ada": "the user name", "example": "the e-mail address", "auth-service": "the name of this service"}

_COMMON = "one of the most used passwords"
_ROW = "a row of keys next to each other"
_REPEATED = "one thing repeated"
_SEQUENCE = "a sequence such as abc or 987"
_ADDED = " with a little added"

# Passwords of Ada Löve-Lace, lovelace@byron-house.example, and what is said of them.
_WEAK = {
    "123456789012": _COMMON + _ADDED,
    "password123456": _COMMON + _ADDED,
    "P@ssw0rd1234": _COMMON + _ADDED,
    "drowssap4321": _COMMON + _ADDED,
    "iloveyou1234": _COMMON + _ADDED,
    "1qaz2wsx3edc": _COMMON,
    "1QAZ2wSX3eDC4RFv": _COMMON,
    "qwertyuiop[]": _ROW,
    "zxcvbnm,./": _ROW,
    "aaaaaaaaaaaa": _REPEATED,
    "trustno1trustno1": _REPEATED,
    "lovelacelovelacelovelace": _REPEATED,
    "hunter hunter hunter ": _REPEATED,
    "aaaaaaaaaaaaaaaab": _REPEATED + _ADDED,
    "abcdefghijklmnop": _SEQUENCE,
    "zyxwvutsrqponmlk": _SEQUENCE,
    "абвгдежзиклм": _SEQUENCE + _ADDED,
    "unbelievable": "a common word",
    "Unbelievable": "a common word",
    "elbaveilebnu": "a common word",
    "basketball12": "a common word" + _ADDED,
    "januaryfebruary": "a common word" + _ADDED,
    "christopher1": _COMMON,
    "fitzgerald12": "a common name" + _ADDED,
    "10.11.199010.11.1990": _REPEATED,
    "19901110": "a date",
    "10/11/1990": "a date",
    "Löve-Lace2019": "the user name" + _ADDED,
    "ada löve-lace!": "the user name" + _ADDED,
    "lovelace@byron-house.example1": "the e-mail address" + _ADDED,
    "byron-house!!": "the e-mail address" + _ADDED,
    "byronhouse99": "the e-mail address" + _ADDED,
    "auth-service1": "the name of this service" + _ADDED,
    "auth.test2024": "the name of this service" + _ADDED,
    "storefront-web": "the name of this service",
    "Storefr0nt-web": "the name of this service",
    "\N{WINKING FACE}" * 12: _REPEATED,
    "ｐａｓｓｗｏｒｄ１２３４": _COMMON,
    "a" * 1024: _REPEATED,
    "password" * 128: _REPEATED,
    "qwertyuiop1" * 93: _REPEATED,
    "a" * 60 + "b" * 60: _REPEATED + _ADDED,
}

_GOOD = [
    PASSWORD,
    "S3cret-passw0rd!",
    "a new and better one",
    "the tortoise sleeps at noon",
    "hoher Besuch im Gartenhaus",
    "пароль из четырёх слов",
    "密码由四个不相干的词组成而成",
    "vY7#kq2!Lp0z",
    "jxwqvbzkfhdg",
    "493027518264",
    "ada has a passphrase of her own",
    "lovelace rides a purple bicycle",
    "aaaaaaaaaaaa vY7#kq2!Lp0z",
    "a" * 500 + "vY7#kq2!Lp0z" + "a" * 500,
    "correct horse battery staple " * 30,
]


async def _refusal(service: Service, password: str) -> str | None:
    """What registering with this password is answered: None where it is good."""
    body = {"username": "Ada Löve-Lace", "email": "lovelace@byron-house.example", "password": password}
    answer = await service.http.post("/user/register", json=body)
    if answer.status_code == 201:
        return None
    assert problem(answer) == (422, "weak_password")
    [error] = answer.json()["errors"]
    assert error == {"field": "password", "message": answer.json()["detail"]}
    return str(answer.json()["detail"])


async def test_a_predictable_password_is_refused_with_what_it_was_recognised_as(start: Start) -> None:
    service = await start(first_party_client_id="storefront-web", password_min_length=8)
    advice = "Take one that is harder to guess, such as four words that do not belong together."
    said = {password: await _refusal(service, password) for password in _WEAK}
    assert said == {password: f"The password is {reason}. {advice}" for password, reason in _WEAK.items()}
    assert await service.sql("SELECT 1 FROM users") == []


@pytest.mark.parametrize("password", _GOOD, ids=lambda password: ascii(password[:30]))
async def test_a_good_password_is_taken_however_it_is_composed(service: Service, password: str) -> None:
    assert await _refusal(service, password) is None


def test_no_random_password_of_twelve_letters_is_refused() -> None:
    seeded = random.Random(5)  # noqa: S311 — the same in every run
    letters = string.ascii_lowercase
    assert [weakness("".join(seeded.choices(letters, k=12)), _KNOWN) for _ in range(300)] == [None] * 300


async def test_every_way_to_set_a_password_has_the_same_rules(service: Service) -> None:
    user = await service.register(username="grace")
    admin = await administrator(service, username="root")
    weak, reason = "Grace1234567", "The password is the user name with a little added."
    names = {"username": "grace2", "email": "grace@example.com"}
    answers = {
        "register": await service.http.post("/user/register", json={**names, "password": weak}),
        "password": await service.http.post(
            "/user/password", json={"current_password": PASSWORD, "new_password": weak}, headers=user.bearer
        ),
        "admin adds": await admin.call("POST", "/users", json={**names, "username": "Grace", "password": weak}),
        "admin changes": await admin.call("PATCH", f"/users/{user.id}", json={"password": weak}),
    }
    for about, answer in answers.items():
        assert problem(answer) == (422, "weak_password"), about
        assert answer.json()["detail"].startswith(reason) or about == "register", about
    assert answers["password"].json()["errors"][0]["field"] == "new_password"
    for arguments in (("add", "Grace", "grace@example.com"), ("set-password", "grace")):
        done = await asyncio.to_thread(
            command, "users", *arguments, "--password-stdin", settings=service.settings, stdin=f"{weak}\n"
        )
        assert (done.code, done.out) == (1, "")
        assert reason in done.err
    assert (await service.login(user)).id == user.id


# Inputs for which zxcvbn takes seconds to minutes: 1 KiB, or few characters that may each stand for several letters.
_HOSTILE: dict[str, Callable[[random.Random], str]] = {
    "one character": lambda _: "a" * 1024,
    "all but one": lambda _: "a" * 1023 + "b",
    "substitutes": lambda seeded: "".join(seeded.choices("@4({[3690!1|71$5+7%2", k=1024)),
    "every substitute": lambda _: ("@4({[3690!1|71$5+7%2" * 3)[:47],
    "few substitutes": lambda _: ("a1!s5$e3o0t7z2bx@4" * 57)[:1023],
    "digits": lambda seeded: "".join(seeded.choices(string.digits, k=1024)),
    "dates": lambda _: "1/1/91 11.11.1991 " * 56,
    "words": lambda _: "correcthorsebatterystaple" * 40,
    "rows": lambda _: "1234567890qwertyuiopq" * 48,
    "almost periodic": lambda _: "abaababaabaababaababa" * 48 + "c",
    "runs": lambda _: "".join(letter * 48 for letter in string.ascii_lowercase)[:1024],
    "a sequence": lambda _: "".join(map(chr, range(0x100, 0x300))),
    "anything": lambda seeded: "".join(seeded.choices(string.printable, k=1024)),
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_judging_a_hostile_password_takes_a_fraction_of_a_second(kind: str) -> None:
    weakness(PASSWORD, _KNOWN)  # loads the lists
    password = _HOSTILE[kind](random.Random(7))  # noqa: S311 — the same in every run
    began = time.thread_time()
    weakness(password, _KNOWN)
    assert time.thread_time() - began < 0.25


def test_a_start_does_not_wait_for_the_word_lists() -> None:
    program = "import sys, auth_service.app, auth_service.cli.main; print('zxcvbn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_judging_waits_in_a_bounded_queue_of_its_own(service: Service) -> None:
    """And holds up no login, however many new passwords there are."""
    user = await service.register()
    refused = REGISTRY.get_sample_value("auth_new_passwords_refused_total") or 0
    rules = service.app.parts.password_rules
    slow = _HOSTILE["almost periodic"](random.Random(7))  # noqa: S311 — a constant
    checks: list[asyncio.Future[None]] = []
    body = {"username": "ada", "email": "ada@example.com", "password": "password123456"}
    answer = None
    while answer != (503, "unavailable"):  # a place may become free while the request is on its way
        assert answer in (None, (422, "weak_password"))
        assert len(checks) < 20 * 136, "the queue has no bound"
        checks += [
            asyncio.ensure_future(rules.require(slow, username="eve", email="eve@example.com")) for _ in range(136)
        ]
        answer = problem(await service.http.post("/user/register", json=body))
    for _ in range(3):
        await service.login(user)
    assert not all(check.done() for check in checks), "nobody waited any more when the logins were answered"
    outcomes = [type(reason).__name__ for reason in await asyncio.gather(*checks, return_exceptions=True)]
    assert set(outcomes) == {"NoneType", "Unavailable"}
    assert outcomes.count("NoneType") >= 128
    in_vain = (REGISTRY.get_sample_value("auth_new_passwords_refused_total") or 0) - refused
    assert in_vain == outcomes.count("Unavailable") + 1
    assert problem(await service.http.post("/user/register", json=body)) == (422, "weak_password")


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=200) | st.text("aA1!0o$5\u0130\u00df\u0663 ", min_size=1, max_size=60))
def test_a_reason_is_one_of_ours_whatever_the_password(password: str) -> None:
    reason = weakness(unicodedata.normalize("NFKC", password), _KNOWN)
    ours = {*_WEAK.values(), *_KNOWN.values(), "a year", "too short for what it is made of"}
    assert reason is None or reason.removesuffix(_ADDED) in {text.removesuffix(_ADDED) for text in ours}


@settings(max_examples=15, deadline=None)
@given(st.text(min_size=12, max_size=80))
def test_a_password_is_the_same_however_its_characters_are_composed(password: str) -> None:
    async def agree() -> None:
        hasher = PasswordHasher(threads=1)
        try:
            stored = await hasher.hash(unicodedata.normalize("NFC", password))
            for form in ("NFD", "NFKC", "NFKD"):
                assert (await hasher.check(unicodedata.normalize(form, password), stored)).right
        finally:
            hasher.close()

    asyncio.run(agree())


async def test_all_of_a_kibibyte_counts_and_no_byte_more_is_taken(service: Service) -> None:
    password = secrets.token_urlsafe(1024)[:1024]
    user = await service.register(password=password)
    for tried, status in ((password, 200), (password[:-1] + "!", 401), (password[:-1], 401), (password[:72], 401)):
        answer = await service.http.post("/user/login", json={"email": user.email, "password": tried})
        assert answer.status_code == status
    body = {"username": "ada", "email": "ada@example.com", "password": password + "!"}
    assert problem(await service.http.post("/user/register", json=body)) == (400, "invalid_request")
    # Each becomes eighteen code points once it is normalised, of 33 bytes.
    assert await _refusal(service, "\ufdfa" * 32) == "The password is longer than 1024 bytes."


async def test_length_counts_code_points_whatever_the_bytes(service: Service) -> None:
    eleven, twelve = "ünbekannte!", "übernommen?!"
    assert len(unicodedata.normalize("NFD", eleven)) == 12
    for short in (eleven, unicodedata.normalize("NFD", eleven), "密码由四个不相干的词组", "\ufdfa" * 3):
        assert await _refusal(service, short) == "The password needs at least 12 characters."
    assert await _refusal(service, unicodedata.normalize("NFD", twelve)) is None


async def test_a_password_is_kept_as_argon2id_with_the_least_parameters_of_owasp(service: Service) -> None:
    await service.register()
    [row] = await service.sql("SELECT password_hash FROM users")
    assert re.fullmatch(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$[\w+/]{22,}\$[\w+/]{43}", row["password_hash"])


@pytest.mark.parametrize(
    "changed", [{"memory_cost": 8192}, {"rounds": 1}, {"parallelism": 2}, {"type": "I"}], ids=json.dumps
)
async def test_a_hash_of_other_parameters_is_renewed_at_the_next_login(
    service: Service, changed: dict[str, int]
) -> None:
    user = await service.register()
    parameters = {"type": "ID", "memory_cost": 19456, "rounds": 2, "parallelism": 1, **changed}
    await service.sql("UPDATE users SET password_hash = $1", argon2.using(**parameters).hash(PASSWORD))
    hashes = []
    for _ in range(2):
        await service.login(user)
        [row] = await service.sql("SELECT password_hash FROM users")
        hashes.append(row["password_hash"])
    assert hashes[0].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hashes[1] == hashes[0]
