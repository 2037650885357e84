"""The one list of engine kinds. A kind that is not here does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.engines.anthropic import ANTHROPIC
from gateway.engines.kind import Engine
from gateway.engines.litellm import LITELLM
from gateway.engines.llamacpp import LLAMACPP
from gateway.engines.openai import OPENAI
from gateway.engines.sglang import SGLANG
from gateway.engines.tgi import TGI
from gateway.engines.vllm import VLLM

ENGINES: Final[Mapping[str, Engine]] = {
    engine.kind: engine for engine in (VLLM, TGI, SGLANG, LLAMACPP, OPENAI, ANTHROPIC, LITELLM)
}
