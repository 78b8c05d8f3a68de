"""What each code means, how it is detected, a wrong and a right line, and how to silence it: the pages of `explain`.

The pages are Markdown, one file a family, to be read as they are, too. No torch.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

PAGES = Path(__file__).with_name("pages")

_PAGE = re.compile(r"^## (GV\d{3}) (.+?)\n\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```python(.*?)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The page of one code.

    Attributes:
        title: as in TITLES.
        before, after: paragraphs before the code and after it; each one line.
        pair: two ops in one: lines that end in `# bad` belong to the wrong op alone, those in `# good` to the right
            one. `forward`, `backward` and their like are the static methods of a torch.autograd.Function. Empty for a
            code that is reserved.
        setting: the claim under which the pair is run, and the shapes of its arguments.
    """

    code: str
    title: str
    before: tuple[str, ...]
    pair: str
    after: tuple[str, ...]
    setting: dict[str, str]

    def variant(self, kind: Literal["bad", "good"]) -> str:
        """The wrong op of the pair, or the right one."""
        other = "good" if kind == "bad" else "bad"
        return "\n".join(x for x in self.pair.splitlines() if not x.rstrip().endswith(f"# {other}")) + "\n"


def page(code: str) -> Page | None:
    """The page of a code; None where there is no such code."""
    return pages().get(code)


@cache
def pages() -> MappingProxyType[str, Page]:
    """All pages in the order of their codes."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(PAGES.glob("GV*.md")))
    return MappingProxyType({found[1]: _parsed(*found.groups()) for text in texts for found in _PAGE.finditer(text)})


def _parsed(code: str, title: str, body: str) -> Page:
    before, info, pair, after = _split(body)
    words = {name: quoted or plain for name, quoted, plain in _WORD.findall(info)}
    return Page(code=code, title=title, before=_paragraphs(before), pair=pair, after=_paragraphs(after), setting=words)


def _split(body: str) -> tuple[str, str, str, str]:
    found = _CODE.search(body)
    if found is None:
        before, _, after = body.rstrip().rpartition("\n\n")
        return before, "", "", after
    return body[: found.start()], found[1], found[2], body[found.end() :]


def _paragraphs(text: str) -> tuple[str, ...]:
    return tuple(" ".join(p.split()) for p in text.split("\n\n") if p.strip())
