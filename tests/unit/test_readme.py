"""The README's table of settings is what settings.py says. `python -m tests.unit.test_readme` writes it anew."""

import re
from pathlib import Path

from runtime.settings import MIB, OF_THE_PLATFORM, Settings

README = Path(__file__).parents[2] / "README.md"
MARKED = re.compile(r"(<!-- settings:begin -->\n).*?(<!-- settings:end -->)", re.DOTALL)


def table() -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if name in OF_THE_PLATFORM:
            continue
        default = "" if field.default in (None, "") else f"`{field.default}`"
        if name.endswith("_bytes") and default:
            default += f" ({field.default // MIB} MiB)"
        lines.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def test_the_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    found = MARKED.search(README.read_text())
    assert found is not None
    assert found.group(0) == f"<!-- settings:begin -->\n{table()}<!-- settings:end -->"


if __name__ == "__main__":
    README.write_text(MARKED.sub(lambda found: found.group(1) + table() + found.group(2), README.read_text()))
