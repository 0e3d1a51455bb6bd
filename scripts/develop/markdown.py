"""Generated Markdown tables between the marks `<!-- table: NAME -->` and `<!-- end -->`."""

from collections.abc import Callable, Mapping, Sequence

END = "<!-- end -->"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(*names: str) -> str:
    """Names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def with_blocks(text: str, blocks: Mapping[str, Callable[[], str]]) -> str:
    """The document with every block between its marks replaced.

    Raises:
        ValueError: a mark is missing.
    """
    for name, make in blocks.items():
        start = f"<!-- table: {name} -->\n"
        if text.count(start) != 1 or END not in text.partition(start)[2]:
            raise ValueError(f"the document must have the marks of table {name!r} once, found {text.count(start)}")
        before, _, after = text.partition(start)
        text = before + start + make().strip() + "\n" + END + after.partition(END)[2]
    return text
