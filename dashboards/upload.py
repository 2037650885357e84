"""Reading a form that carries a file. What cannot be read is ``BadRequest``; nothing is kept on disk."""

from __future__ import annotations

from email import message_from_bytes, policy
from typing import Final

from gateway.types.errors import BadRequest

KIND: Final = "multipart/form-data"
MOST_FIELDS: Final = 1_000


def parsed(content_type: str, body: bytes) -> tuple[list[tuple[str, str]], dict[str, bytes]]:
    """Return the fields and the files of ``body``, each by its name; a file that nobody chose is not among them."""
    head = b"Content-Type: " + content_type.encode("latin-1", "replace").replace(b"\n", b" ") + b"\r\n\r\n"
    message = message_from_bytes(head + body, policy=policy.HTTP)
    if not message.is_multipart():
        raise BadRequest("the form cannot be read")
    fields: list[tuple[str, str]] = []
    files: dict[str, bytes] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(data, bytes) or len(fields) >= MOST_FIELDS:
            raise BadRequest("the form cannot be read")
        if part.get_param("filename", header="content-disposition") is None:
            try:
                fields.append((name, data.decode("utf-8")))
            except UnicodeDecodeError:
                raise BadRequest("the form cannot be read") from None
        elif data:
            files[name] = data
    return fields, files
