"""Links to images, sounds and films: what a caller may name is what anybody may ask for.

An engine takes a link that is no URL for the path of a file on its own host (SGLang opens it, and so does whoever is
told where files lie), which is nothing of the caller's. Neither are tensors in place of an image or a sound: vLLM
unpickles them, as it does ``prompt_embeds`` (``gateway.engines.fields``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.types.errors import BadRequest

_LINK: Final = re.compile(r"https?://|data:", re.IGNORECASE)


def check_links(part: Mapping[str, Any], place: str) -> None:
    """Refuse a content part with a link that is not of the web and does not hold its content, or with tensors.

    Raises ``BadRequest``.
    """
    for name, value in part.items():
        if name.endswith("_embeds"):
            raise BadRequest(f"{place}: {name[:64]} is not passed on: send what it was made of", param=place)
        if name.endswith("_url"):
            link = value.get("url") if type(value) is dict else value
            if type(link) is str and _LINK.match(link) is None:
                raise BadRequest(f"{place}: {name[:64]} must be an http, https or data URL", param=place)
