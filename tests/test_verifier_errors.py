"""The tree of refusals as Python objects: they may cross a process, and name what they name."""

import copy
import pickle
from collections.abc import Iterator

import pytest

from auth_service.verifier import InsufficientScope, InvalidClaim, VerifierError


def kinds(kind: type[VerifierError] = VerifierError) -> Iterator[type[VerifierError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from kinds(narrower)


def made(kind: type[VerifierError]) -> VerifierError:
    if kind is InvalidClaim:
        return InvalidClaim("iss", "another issuer")
    return InsufficientScope(["b", "a"]) if kind is InsufficientScope else kind("why")


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_refusal_survives_a_copy_and_a_pickle(kind: type[VerifierError]) -> None:
    refusal = made(kind)
    for again in (copy.copy(refusal), copy.deepcopy(refusal), pickle.loads(pickle.dumps(refusal))):  # noqa: S301
        assert type(again) is kind
        assert (str(again), vars(again)) == (str(refusal), vars(refusal))


def test_a_refusal_says_why() -> None:
    assert str(InvalidClaim("iss", "another issuer")) == "iss: another issuer"
    assert str(InsufficientScope(["a"])) == "the token lacks a scope"
