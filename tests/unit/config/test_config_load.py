"""A good file becomes one immutable snapshot with everything resolved; secrets stay out of sight."""

from __future__ import annotations

import dataclasses
import os
import pickle
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from gateway.config.field import Section
from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.config.snapshot import (
    BackendLimits,
    Capabilities,
    Capacity,
    EndpointGroup,
    RoutingSpec,
    Secret,
    TeamSpec,
    Timeouts,
)
from gateway.types.money import Rates
from tests.unit.config.example import ENVIRON, PRESETS, Loader, Refuser


def test_backends(accept: Loader, example: str) -> None:
    """Everything the file says of a backend arrives, and defaults fill the rest."""
    backends = accept(example).backends
    assert list(backends) == ["gpu-a", "gpu-b", "dashscope"]
    first, external = backends["gpu-a"], backends["dashscope"]
    assert (first.kind, first.url, first.provider, first.region) == ("vllm", "http://10.0.0.11:8000", "own", "eu")
    assert (first.usd_per_hour, first.gpu, first.api_key) == (4_600_000_000, "2xH100", None)
    assert first.capacity == Capacity(256, 312_000, 15_928.0)
    assert first.timeouts == Timeouts(5.0, 600.0, 120.0)
    assert (first.on_disconnect, first.limits) == ("cancel", BackendLimits())
    assert (external.provider, external.region, external.on_disconnect) == ("dashscope", None, "drain")
    assert external.limits == BackendLimits(rpm=600)
    assert external.api_key == Secret("sk-canary-1")


def test_models_and_endpoints(accept: Loader, example: str) -> None:
    """Endpoints know their provider and region, their names upstream, and the price that counts there."""
    model = accept(example).models["qwen/qwen3-32b"]
    assert (model.name, model.context_length, model.created, model.description) == ("Qwen3 32B", 40960, 0, "")
    assert model.price == Rates(100_000, 300_000, cache_read=20_000)
    first, second, external = model.endpoints
    assert first.group == EndpointGroup("qwen/qwen3-32b", "own", "fp8", "eu")
    assert second.group == first.group
    assert (first.upstream_model, first.price, first.cost) == ("Qwen/Qwen3-32B", model.price, None)
    assert external.price == Rates(200_000, 800_000), "an endpoint's price replaces the model's whole price"
    assert external.cost == Rates(160_000, 640_000)
    assert external.group == EndpointGroup("qwen/qwen3-32b", "dashscope", None, None)
    assert (external.context_length, external.max_output) == (40960, None)


def test_other_sections(accept: Loader, example: str) -> None:
    """Aliases, routing, egress and teams arrive."""
    snapshot = accept(example)
    assert snapshot.aliases == {"house-default": (("qwen/qwen3-32b", 95), ("embedder", 5))}
    assert snapshot.routing == RoutingSpec("balanced")
    assert snapshot.egress.allow == (ip_network("10.0.0.0/8"),)
    assert snapshot.teams == (TeamSpec("search", "Search team"),)


def test_capabilities(accept: Loader, example: str) -> None:
    """A chat model can call tools, an embedding model cannot; an endpoint overrides its model."""
    text = example.replace("{backend: gpu-b}", "{backend: gpu-b, capabilities: {logprobs: true}}")
    models = accept(text).models
    assert models["qwen/qwen3-32b"].capabilities == Capabilities()
    embedder = models["embedder"]
    assert embedder.capabilities == Capabilities(False, False, False, False, False, True, False, False)
    assert embedder.endpoints[0].capabilities == Capabilities(False, False, False, False, True, True, False, False)


def test_lengths_of_an_endpoint(accept: Loader, example: str) -> None:
    """An endpoint's own lengths win; an answer is never longer than the endpoint's context."""
    text = example.replace("context_length: 8192", "context_length: 8192\n    max_output: 4096").replace(
        "{backend: gpu-b}", "{backend: gpu-b, context_length: 2048}"
    )
    endpoint = accept(text).models["embedder"].endpoints[0]
    assert (endpoint.context_length, endpoint.max_output) == (2048, 2048)


def test_model_without_a_price_of_its_own(accept: Loader, example: str) -> None:
    """When each endpoint has a price, the model needs none and shows the cheapest."""
    text = example.replace('    price: {prompt: "0.01", completion: "0"}\n', "").replace(
        "- {backend: gpu-b}\n",
        '- {backend: gpu-b, price: {prompt: "2", completion: "0"}}\n'
        '      - {backend: dashscope, price: {prompt: "1", completion: "0"}}\n',
    )
    assert accept(text).models["embedder"].price == Rates(1_000_000, 0)


def test_price_per_request_is_in_nano_usd(accept: Loader, example: str) -> None:
    """The fee of a request is USD, not USD per million tokens."""
    text = example.replace('completion: "0"}', 'completion: "0", request: "0.0001"}')
    assert accept(text).models["embedder"].price == Rates(10_000, 0, request=100_000)


def test_yaml_words_stay_words(accept: Loader, example: str) -> None:
    """Norway is a region: ``no`` is text, as in YAML 1.2."""
    assert accept(example.replace("region: eu", "region: no")).backends["gpu-a"].region == "no"


def test_aliases_of_yaml_work(accept: Loader, example: str) -> None:
    """An anchored value may be repeated by a YAML alias."""
    text = example.replace("capacity: {max", "capacity: &big {max").replace(
        "url: http://10.0.0.12:8000,", "url: http://10.0.0.12:8000, capacity: *big,"
    )
    backends = accept(text).backends
    assert backends["gpu-a"].capacity == backends["gpu-b"].capacity == Capacity(256, 312_000, 15_928.0)


def test_two_backends_may_share_a_url(accept: Loader, example: str) -> None:
    """One server may stand behind several backends."""
    assert len(accept(example.replace("10.0.0.12", "10.0.0.11")).backends) == 3


def test_byte_order_mark_and_line_ends(accept: Loader, example: str) -> None:
    """A file from a Windows editor is read like any other."""
    assert accept("\ufeff" + example.replace("\n", "\r\n")) == accept(example)


def test_snapshot_is_immutable(accept: Loader, example: str) -> None:
    """Neither a field nor an entry of a snapshot can be replaced."""
    snapshot = accept(example)
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.version = 2  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        snapshot.backends["x"] = snapshot.backends["gpu-a"]  # type: ignore[index]  # that is the point


def test_equal_content_is_equal(accept: Loader, example: str) -> None:
    """Comments and layout change neither equality nor the digest; a price changes both."""
    one = accept(example)
    same = accept("# a comment\n" + yaml.safe_dump(yaml.safe_load(example), sort_keys=False))
    other = accept(example.replace('"0.30"', '"0.31"'))
    assert one == same
    assert one.digest == same.digest
    assert one != other
    assert one.digest != other.digest


def test_version_is_given(tmp_path: Path, example: str) -> None:
    """The caller numbers snapshots."""
    path = tmp_path / "weir.yaml"
    path.write_text(example)
    assert load(path, presets=PRESETS, environ=ENVIRON, version=7).version == 7


def test_process_environment_is_the_default(tmp_path: Path, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an explicit environment, references mean the environment of the process."""
    path = tmp_path / "weir.yaml"
    path.write_text(example)
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-from-process")
    assert load(path, presets=PRESETS).backends["dashscope"].api_key == Secret("sk-from-process")


def test_secret_from_a_file(accept: Loader, example: str, tmp_path: Path) -> None:
    """A file reference is read beside the configuration, without its line end, and is watched as a source."""
    Path(tmp_path, "key.txt").write_text("sk-file\n")
    snapshot = accept(example.replace('"${DASHSCOPE_API_KEY}"', "{file: key.txt}"))
    assert snapshot.backends["dashscope"].api_key == Secret("sk-file")
    assert [source.path.name for source in snapshot.sources] == ["weir.yaml", "key.txt"]


def test_secrets_are_not_shown(accept: Loader, example: str) -> None:
    """No repr, text form or digest depends on the characters of a secret, though equality does."""
    snapshot = accept(example)
    secret = snapshot.backends["dashscope"].api_key
    assert secret is not None
    assert secret.reveal() == "sk-canary-1"
    assert "canary" not in f"{snapshot!r} {snapshot} {secret} {secret!r}"
    other = load("weir.yaml", presets=PRESETS, environ={"DASHSCOPE_API_KEY": "sk-canary-2"})
    assert other.digest == snapshot.digest
    assert other != snapshot
    assert hash(secret) == hash(pickle.loads(pickle.dumps(secret)))


@pytest.mark.parametrize(
    ("reference", "message", "mend"),
    [
        ("sk-canary-literal", "is not a reference", 'write "${NAME}"'),
        ('"prefix-${DASHSCOPE_API_KEY}"', "is not a reference", 'write "${NAME}"'),
        ('"${}"', "is not a reference", 'write "${NAME}"'),
        ('""', "is not a reference", 'write "${NAME}"'),
        ("{file: key.txt, canary: 1}", "is not a reference", "{file: path}"),
        ("{file: ''}", "is not a reference", "{file: path}"),
        ("[a]", "is not a reference", "{file: path}"),
        ("", "has no value", "give it one"),
        ('"${UNSET}"', "the environment variable UNSET is not set", "set it"),
        ('"${EMPTY}"', "the environment variable EMPTY is empty", "put the key there"),
        ('"${BLANK}"', "the environment variable BLANK is empty", "put the key there"),
        ('"${SPLIT}"', "no header may carry", "printable ASCII"),
        ("{file: absent.txt}", 'the file "absent.txt" cannot be read: No such file or directory', "relative path"),
        ('{file: "nul\\0"}', "cannot be read: its name holds a NUL", "relative path"),
        ("{file: /dev/zero}", "cannot be read: it is not a regular file", "relative path"),
        ("{file: empty.txt}", 'the file "empty.txt" is empty', "put the key there"),
        ("{file: two-lines.txt}", "no header may carry", "printable ASCII"),
        ("{file: binary.txt}", "no header may carry", "printable ASCII"),
        ("{file: huge.txt}", "cannot be read: it is larger than 16384 bytes", "relative path"),
    ],
)
def test_bad_secret_is_refused(tmp_path: Path, example: str, reference: str, message: str, mend: str) -> None:
    """A literal, missing, empty or unfit secret is refused at its place, and never quoted."""
    for name, content in (
        ("empty.txt", b"\n"),
        ("two-lines.txt", b"canary\nX-Injected: 1"),
        ("binary.txt", b"canary\xff"),
        ("huge.txt", b"x" * 20_000),
    ):
        Path(tmp_path, name).write_bytes(content)
    path = tmp_path / "weir.yaml"
    path.write_text(example.replace('"${DASHSCOPE_API_KEY}"', reference))
    environ = {"EMPTY": "", "BLANK": "  ", "SPLIT": "canary\r\nX-Injected: 1"}
    with pytest.raises(ConfigError) as caught:
        load(path, presets=PRESETS, environ=environ)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (14, 5, "backends[2].api_key")
    assert message in problem.message
    assert mend in problem.mend
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.yaml", ".", "nul\0"])
def test_unreadable_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read is one problem without a place."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(name, presets=PRESETS, environ={})
    (problem,) = caught.value.problems
    assert problem.render().startswith(f"{name}: cannot be read: ")
    assert "WEIR_CONFIG" in problem.mend


def test_pipe_does_not_block(tmp_path: Path) -> None:
    """A named pipe is refused at once instead of waited for."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="not a regular file"):
        load(path, presets=PRESETS, environ={})


def test_too_large_file(refuse: Refuser) -> None:
    """A file over one MiB is refused unread."""
    (problem,) = refuse("#" * (1024 * 1024 + 1))
    assert problem.startswith("weir.yaml: cannot be read: it is larger than 1048576 bytes -> ")


def test_every_key_is_described() -> None:
    """Each key of the file says what it is for, and each one that must be there has an example."""
    for section in Section.__subclasses__():
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            assert field.examples or not field.is_required(), f"{section.__name__}.{name}"
