"""Filling a template and writing the page.

Whatever comes from data or files is escaped: Jinja2's autoescape in the templates, `Markup.format` in the pictures.
The pages forbid scripts and everything from elsewhere in their content security policy as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dist_gat.base.errors import StorageError
from dist_gat.base.storage import write_text
from dist_gat.pages.figures import duration, percent, three_digits, with_error


def fill_template(template: str, **values: Any) -> str:
    """The HTML of a template in `dist_gat/pages/templates`."""
    environment = Environment(
        loader=PackageLoader("dist_gat.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": show_number, "short": three_digits, "percent": percent, "duration": duration}
    environment.globals["with_error"] = with_error
    return environment.get_template(template).render(**values)


def show_number(value: Any) -> str:
    """Numbers with four significant digits, whole ones in full; everything else as it prints."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def save_page(path: Path, html: str) -> None:
    """Write a page in one step; folders on the way are made. Raises `StorageError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, html)
    except OSError as err:
        raise StorageError(f"{path}: can't be written: {err.strerror}; choose another file") from None
