"""``weir sim``: one simulated backend as a process of its own. A port that is taken is a ``StartError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
from typing import Annotated

import typer


def sim(
    kind: Annotated[str, typer.Option(help="Whose HTTP face: vllm, sglang, tgi, openai.")] = "vllm",
    model: Annotated[list[str] | None, typer.Option(help="Model served; may be repeated.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="TCP port, 0 takes a free one.")] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Requests that run at the same time.")] = 256,
    ttft: Annotated[float, typer.Option(min=0, help="Seconds to the first token of an empty prompt.")] = 0.05,
    itl: Annotated[float, typer.Option(min=0, help="Seconds between tokens.")] = 0.02,
    profile: Annotated[
        str | None, typer.Option(help="Times of a real engine, step by step: fast or slow; replaces --ttft and --itl.")
    ] = None,
    demo_fleet: Annotated[bool, typer.Option("--demo", hidden=True)] = False,
) -> None:
    """Run one simulated backend until it is stopped."""
    import asyncio

    from gateway import demo
    from gateway.process import StartError
    from gateway.sim import ALL_KINDS, SimConfig, Timing, run
    from gateway.stepmodel import PROFILES

    if demo_fleet:
        asyncio.run(demo.run_fleet(os.environ["WEIR_SIM_DEMO_KEY"]))
        return
    if kind not in ALL_KINDS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(ALL_KINDS)}")
    if profile is not None and profile not in PROFILES:
        raise typer.BadParameter(f"{profile!r} is none of {', '.join(PROFILES)}", param_hint="--profile")
    timing = Timing(base_ttft=ttft, itl=itl, slots=slots)
    models = tuple(model) if model else ("Qwen/Qwen3-32B",)
    try:
        asyncio.run(run((SimConfig(kind, models, f"sim-{kind}", port=port, timing=timing, profile=profile),)))
    except OSError as error:
        raise StartError(f"cannot listen on port {port}: {error.strerror}; choose another with --port") from error
