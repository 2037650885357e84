"""The HTTP faces a simulated backend can show: one module per kind of API."""

from __future__ import annotations

from gateway.sim.config import SimConfig
from gateway.sim.engine import Engine
from gateway.sim.faces.anthropic import AnthropicFace
from gateway.sim.faces.face import Face
from gateway.sim.faces.openai import OpenAIFace
from gateway.sim.faces.sglang import SGLangFace
from gateway.sim.faces.tgi import TGIFace
from gateway.sim.faces.vllm import VLLMFace

FACES: dict[str, type[Face]] = {
    "vllm": VLLMFace,
    "sglang": SGLangFace,
    "tgi": TGIFace,
    "openai": OpenAIFace,
    "anthropic": AnthropicFace,
}


def face_of(config: SimConfig, engine: Engine) -> Face:
    """Return the face ``config`` asks for, showing ``engine``."""
    return FACES[config.kind](config, engine)
