"""`mail`: messages as subject and body, without addresses."""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message

from tikmix_pipeline.corpus.readers.html import text_of_html
from tikmix_pipeline.corpus.readers.types import Files
from tikmix_pipeline.corpus.text import tidy

_MIN_CHARACTERS = 80
_MAX_CHARACTERS = 60_000
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")


def read_mail(files: Files, _field: str | None) -> Iterator[str]:
    """Make one document of a message; of several bodies, the first that is plain text."""
    for _, data in files:
        message = message_from_bytes(data)
        body = _body(message)
        text = tidy(_ADDRESS.sub("<addr>", f"Subject: {message['subject'] or ''}\n\n{body}"))
        if body and _MIN_CHARACTERS <= len(text) <= _MAX_CHARACTERS:
            yield text


def _body(message: Message) -> str:
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    for part in parts:
        if part.get_content_subtype() == "plain":
            return _payload(part)
    return "\n".join(text_of_html(_payload(part)) for part in parts if part.get_content_subtype() == "html").strip()


def _payload(part: Message) -> str:
    content = part.get_payload(decode=True)
    return content.decode("latin-1") if isinstance(content, bytes) else ""
