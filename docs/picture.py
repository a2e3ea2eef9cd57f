"""What a terminal shows, as a picture: ``tmux capture-pane -e -p | python docs/picture.py > docs/transfer.svg``."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

text = Text.from_ansi(sys.stdin.read().rstrip())
console = Console(record=True, width=max(80, *(len(line) for line in text.plain.splitlines())), file=sys.stderr)
console.print(text)
print(console.export_svg(title="fsmux"))
