"""The keeper's protocol: frames in any pieces, typed values, errors that stay what they are."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keeper.protocol import (
    KEY_USAGE,
    MAX_FRAME,
    METHODS,
    UPDATE_KEY,
    Failure,
    FrameReader,
    KeyChange,
    Message,
    ProtocolError,
    Reply,
    Request,
    error_form,
    error_of,
    frame,
    raw,
)
from gateway.types import errors
from gateway.types.generation import KeyUsage
from gateway.types.keys import KeyAdmin, KeyLimits, KeyPatch, KeyRecord

_MESSAGES = st.one_of(
    st.builds(Request, st.integers(0, 2**40), st.text(max_size=20), st.binary(max_size=50).map(raw)),
    st.builds(Reply, st.integers(0, 2**40), st.lists(st.integers(0, 9)).map(raw)),
    st.builds(Failure, st.integers(0, 2**40), st.text(max_size=50).map(lambda t: error_form(errors.NotFound(t)))),
    st.builds(
        KeyChange,
        st.lists(
            st.builds(
                KeyRecord,
                key_id=st.text(max_size=8),
                name=st.text(max_size=8),
                digest=st.binary(max_size=32),
                team=st.text(max_size=8),
                created_at=st.integers(0, 2**60),
            ),
            max_size=3,
        ).map(tuple),
    ),
)


def _read(stream: bytes, cuts: list[int]) -> list[Message]:
    reader = FrameReader()
    found: list[Message] = []
    start = 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        found.extend(reader.feed(stream[start:cut]))
        start = cut
    return found


@given(st.lists(_MESSAGES, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_messages_come_through_whole_however_the_stream_is_cut(messages: list[Message], cuts: list[int]) -> None:
    """Any number of messages in any pieces, in order, none twice."""
    stream = b"".join(frame(message) for message in messages)
    assert [frame(found) for found in _read(stream, cuts)] == [frame(message) for message in messages]


@given(st.binary(max_size=300))
def test_noise_is_a_protocol_error_or_an_unfinished_frame(noise: bytes) -> None:
    """Nothing but ProtocolError ever leaves the reader."""
    reader = FrameReader()
    try:
        for found in reader.feed(noise):
            assert isinstance(found, Request | Reply | Failure | KeyChange)
    except ProtocolError:
        pass


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    """A length that is too long is refused from the length alone."""
    with pytest.raises(ProtocolError, match="too long"):
        FrameReader().feed(struct.pack("<I", MAX_FRAME + 1))


def _classes(root: type[errors.WeirError]) -> list[type[errors.WeirError]]:
    return [root] + [found for child in root.__subclasses__() for found in _classes(child)]


KNOWN = [found for found in _classes(errors.WeirError) if found.__module__ == errors.__name__]


class Late(errors.BadRequest):
    """An error of one part's own."""

    def __init__(self) -> None:
        super().__init__("too late")


def test_an_error_of_one_part_comes_back_as_what_it_is_a_kind_of() -> None:
    """The other side of the socket may not have the part."""
    back = error_of(error_form(Late()))
    assert (type(back), back.message) == (errors.BadRequest, "too late")


@pytest.mark.parametrize("found", KNOWN)
def test_every_error_comes_back_as_what_it_was(found: type[errors.WeirError]) -> None:
    """Class, message and all attributes survive the way through a frame."""
    sent = found("what is wrong", param="name", metadata={"limit": "rpm", "n": [1, None]}, retry_after=1.5)
    (message,) = FrameReader().feed(frame(Failure(1, error_form(sent))))
    assert isinstance(message, Failure)
    back = error_of(message.error)
    assert type(back) is found
    assert (back.message, back.param, back.metadata, back.retry_after, back.code, back.kind) == (
        sent.message,
        sent.param,
        sent.metadata,
        sent.retry_after,
        sent.code,
        sent.kind,
    )


def test_an_upstream_error_keeps_its_own_status() -> None:
    """The status of one very error travels, not only that of its class."""
    back = error_of(error_form(errors.UpstreamFailed("x", code=504, kind="timeout")))
    assert (back.code, back.kind) == (504, "timeout")


def test_a_foreign_error_tells_nothing_of_itself() -> None:
    """What is not meant for callers becomes Internal without its text."""
    back = error_of(error_form(ValueError("the secret is hunter2")))
    assert isinstance(back, errors.Internal)
    assert "hunter2" not in back.message


def test_metadata_of_any_kind_can_travel() -> None:
    """A value that MessagePack cannot hold is told as text rather than lost with its error."""
    sent = errors.BadRequest("x", metadata={"at": object})
    (message,) = FrameReader().feed(frame(Failure(1, error_form(sent))))
    assert isinstance(message, Failure)
    assert message.error.metadata == {"at": str(object)}


def test_what_a_patch_leaves_out_stays_left_out() -> None:
    """UNSET and None are different things on the other side too."""
    for patch in (KeyPatch(), KeyPatch(models=None), KeyPatch(expires_at=None, limits=KeyLimits(rpm=1), name="n")):
        decoded: Any = UPDATE_KEY.arguments.decode(raw(("abcd1234", patch)))
        assert decoded == ("abcd1234", patch)
        assert (decoded[1].models is msgspec.UNSET) == (patch.models is msgspec.UNSET)


def test_results_are_typed() -> None:
    """A result of another type than the method's does not get through."""
    assert KEY_USAGE.result.decode(raw({"a": KeyUsage(1, 2, 3, 4)})) == {"a": KeyUsage(1, 2, 3, 4)}
    with pytest.raises(msgspec.DecodeError):
        KEY_USAGE.result.decode(raw({"a": "much"}))


def test_every_method_of_key_management_can_be_called() -> None:
    """The table knows the whole of KeyAdmin."""
    methods = {name for name in vars(KeyAdmin) if not name.startswith("_")}
    assert methods <= set(METHODS)
