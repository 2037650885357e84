"""Promises of the load: bodies of one size, requests that are well formed, results that count only when whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.load import LoadError, Target, _result, script
from bench.machine import file_system
from bench.payload import MODES, STAMP, chat_body, http_request, stamped

_TARGET = Target("127.0.0.1", 1, "/v1/chat/completions", "qwen/qwen3-32b", {"Authorization": 'Bearer "k"'})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["a", "qwen/qwen3-32b"])
def test_every_body_has_the_same_size_and_names_its_mode(mode: str, model: str) -> None:
    """All contestants get bodies of 800 bytes; only JSON is not streamed; streams ask for usage."""
    body = chat_body(mode, model, 63)
    request = json.loads(body)
    assert len(body) == 800
    assert request["model"] == model
    assert request["messages"][1]["content"].startswith(f"bench:{mode}. ")
    assert request.get("stream", False) is (mode != "json")
    assert request.get("stream_options") == (None if mode == "json" else {"include_usage": True})


def test_prompts_differ_after_a_common_system_prompt() -> None:
    """A router that looks at prefixes sees different conversations of one application."""
    bodies = [json.loads(chat_body("json", "m", serial)) for serial in range(3)]
    assert len({body["messages"][0]["content"] for body in bodies}) == 1
    assert len({body["messages"][1]["content"] for body in bodies}) == 3


def test_impossible_bodies_are_refused() -> None:
    """An unknown mode or a size that cannot hold the request is an error where it is asked for."""
    with pytest.raises(ValueError, match="unknown mode"):
        chat_body("burts", "m")
    with pytest.raises(ValueError, match="cannot hold"):
        chat_body("drip", "m", size=100)


def test_a_request_states_its_length_and_headers() -> None:
    """The raw request is complete HTTP/1.1."""
    head, body = http_request("h:1", "/p", {"X-Key": "v"}, b"12345").split(b"\r\n\r\n")
    assert head.startswith(b"POST /p HTTP/1.1\r\nHost: h:1\r\n")
    assert b"\r\nX-Key: v" in head
    assert head.endswith(b"Content-Length: 5")
    assert body == b"12345"


def test_a_stamp_reads_back_only_when_whole() -> None:
    """A send time that is cut by a read boundary does not match."""
    stamp = stamped(123_456_789)
    match = STAMP.search(b"x" + stamp + b"y")
    assert match is not None
    assert int(match[1]) == 123_456_789
    assert STAMP.search(stamp[:-1]) is None


@pytest.mark.skipif(shutil.which("wrk") is None, reason="sudo apt-get install wrk")
def test_the_script_is_lua_that_wrk_accepts(tmp_path: Path) -> None:
    """Wrk loads the script with its bodies and quoted headers, and the script prints figures at the end."""
    path = tmp_path / "json.lua"
    path.write_text(script(_TARGET, "json"))
    done = subprocess.run(
        ["wrk", "-t1", "-c1", "-d1s", "-s", str(path), "http://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    seen = done.stdout + done.stderr
    # Port 1 refuses: wrk either gives up at once or reports errors, but never a fault of the script.
    assert ".lua" not in seen
    assert "FIGURES" in seen or "unable to connect" in seen


def test_the_script_sends_every_prompt_with_the_headers() -> None:
    """64 prompts in rotation, each a valid body, and the contestant's key quoted for Lua."""
    text = script(_TARGET, "burst")
    bodies = re.findall(r"\[==\[(.*?)\]==\]", text)
    assert len({json.loads(body)["messages"][1]["content"] for body in bodies}) == 64
    assert r'["Authorization"]="Bearer \"k\""' in text


def _output(requests: int = 10, size: int = 10_000, errors: int = 0) -> str:
    return (
        f'noise\nFIGURES {{"requests": {requests}, "seconds": 2.0, "bytes": {size}, "errors": {errors}, '
        '"p50_us": 100, "p99_us": 900}\n'
    )


def test_a_whole_result_counts() -> None:
    """Requests, duration, size per answer and latencies come from wrk's own summary."""
    seen = _result(_output(), 500)
    assert (seen.requests, seen.seconds, seen.size, seen.p50_us, seen.p99_us) == (10, 2.0, 1000.0, 100, 900)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (_output(errors=1), "1 of 10 requests failed"),
        (_output(requests=0), "0 of 0 requests failed"),
        (_output(size=4990), "not whole"),
        ("unable to connect", "no figures: unable to connect"),
    ],
)
def test_a_result_with_failures_does_not_count(output: str, reason: str) -> None:
    """Cheap errors or cut answers must not look like fast requests."""
    with pytest.raises(LoadError, match=reason):
        _result(output, 500)


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    """The report names the disk that the journal is on."""
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/deep xfs rw 0 0\n"
    assert file_system(Path("/srv/weir"), mounts) == "ext4"
    assert file_system(Path("/tmp/x"), mounts) == "tmpfs"
    assert file_system(Path("/tmp/deep/x"), mounts) == "xfs"
    assert file_system(Path("/tmpx"), mounts) == "ext4"
