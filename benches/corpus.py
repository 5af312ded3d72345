#!/usr/bin/env python3
"""Training text from Debian's documentation packages, for benches/distil.py and for trying `onnxq distil`.

    apt-get install --no-install-recommends anarchism debian-handbook debian-policy developers-reference \\
        fortunes git-doc jargon-text postgresql-doc-15 python3-doc
    benches/corpus.py OUT

OUT/general.txt (6 MB of essays, handbooks, manuals and quotations, paragraphs of all packages in an order
that their digests make) and OUT/postgresql.txt, OUT/postgresql_held_out.txt (every tenth page). Plain
paragraphs, an empty line between them. The same packages give the same bytes.
"""

import gzip
import hashlib
import html.parser
import pathlib
import re

from common import SMOKE, arguments

DOC = pathlib.Path("/usr/share/doc")
GENERAL = ["anarchism", "debian-handbook", "debian-policy", "developers-reference", "python3.11", "git-doc", "jargon-text"]
FORTUNES = pathlib.Path("/usr/share/games/fortunes")
GENERAL_BYTES = 6_000_000
SKIP = {"script", "style", "head", "pre", "table", "nav", "code"}
BREAK = {"p", "div", "li", "h1", "h2", "h3", "h4", "dd", "dt", "section", "br"}


class Text(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.parts, self.hidden = [], 0

    def handle_starttag(self, tag, attrs):
        if tag in SKIP - {"code"}:
            self.hidden += 1
        if tag in BREAK:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        if tag in SKIP - {"code"} and self.hidden:
            self.hidden -= 1
        if tag in BREAK:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data.replace("\n", " "))


def paragraphs(path):
    data = gzip.open(path, "rt", errors="replace").read() if path.suffix == ".gz" else path.read_text(errors="replace")
    if path.name.endswith((".html", ".html.gz")):
        parser = Text()
        parser.feed(data)
        lines = "".join(parser.parts).split("\n")
    else:
        lines = [it.replace("\n", " ") for it in re.split(r"\n\s*\n", data)]
    lines = [re.sub(r"\s+", " ", it).strip() for it in lines]
    # Prose: long enough, with few signs.
    good = [it for it in lines if len(it) > 120 and sum(c.isalpha() or c in " ,.'" for c in it) > 0.93 * len(it)]
    return good


def pages(folder):
    found = [it for it in sorted(folder.rglob("*")) if it.is_file() and re.search(r"\.(html|txt)(\.gz)?$", it.name)]
    english = [it for it in found if not re.search(r"\b(de|fr|es|it|ja|ru|zh|pt|nl|pl|sv|da|nb|cs|el|ar|fa|hr|id|ko|ro|tr|vi)[-_][A-Z]{2}\b", str(it))]
    return english[:2] if SMOKE else english


def quotations():
    for path in sorted(FORTUNES.iterdir()) if FORTUNES.exists() else []:
        if path.is_file() and not path.suffix:
            texts = [re.sub(r"\s+", " ", it).strip() for it in path.read_text(errors="replace").split("\n%\n")]
            yield [it for it in texts if len(it) > 120]


def write(path, lists, most=None):
    out = list(dict.fromkeys(p for page in lists for p in page))
    if most:
        out.sort(key=lambda it: hashlib.sha1(it.encode()).digest())
        size, kept = 0, []
        for it in out:
            size += len(it.encode()) + 2
            if size > most:
                break
            kept.append(it)
        out = kept
    path.write_text("\n\n".join(out) + "\n")
    print(f"{path}: {len(out)} paragraphs, {path.stat().st_size / 1e6:.1f} MB")


def main():
    out = pathlib.Path(*arguments(lambda onnxq, folder: [folder]))
    out.mkdir(parents=True, exist_ok=True)
    general = [paragraphs(it) for name in GENERAL if (DOC / name).exists() for it in pages(DOC / name)]
    write(out / "general.txt", general + list(quotations()), GENERAL_BYTES)
    postgres = [paragraphs(it) for name in sorted(DOC.glob("postgresql-doc*")) for it in pages(name)]
    write(out / "postgresql.txt", [it for i, it in enumerate(postgres) if i % 10])
    write(out / "postgresql_held_out.txt", postgres[::10])


if __name__ == "__main__":
    main()
