"""``weir config``: the configuration file. A file that is refused is explained and has exit status 1."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import typer

from gateway.commands.console import Json, complain, print_json, say
from gateway.commands.environment import Config, read_settings

app = typer.Typer(help="The configuration file.", no_args_is_help=True)


@app.command("check")
def config_check(config: Config = None, as_json: Json = False) -> None:
    """Say what is wrong with a configuration file, where, and the mend."""
    import msgspec

    from gateway.app import presets
    from gateway.config.load import load
    from gateway.config.problem import ConfigError
    from gateway.process import StartError

    settings = read_settings(config)
    if settings.config is None:
        raise StartError("no configuration: give --config FILE or set WEIR_CONFIG")
    try:
        snapshot = load(settings.config, presets=presets())
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "problems": [msgspec.to_builtins(problem) for problem in error.problems]})
        else:
            complain(str(error))
        raise SystemExit(1) from None
    profiles = {spec.name: spec.profile for spec in snapshot.backends.values() if spec.profile}
    found = {
        "ok": True,
        "backends": len(snapshot.backends),
        "models": len(snapshot.models),
        "profiles": profiles,
    }
    if as_json:
        print_json(found)
        return
    say(f"{settings.config}: good; {found['backends']} backends, {found['models']} models")
    for name, profile in profiles.items():
        spec = snapshot.backends[name]
        say(f"{name}: {spec.url} is taken for {profile} (profile), on_disconnect: {spec.on_disconnect}")
