"""The page: one file, and the policy under which a browser may run exactly what it holds."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

__all__ = ["PAGE", "PAGE_POLICY"]

PAGE = files("stream").joinpath("page.html").read_text("utf-8")


def _hashes(element: str) -> str:
    """Source expressions that allow these elements of the page, told by their content (CSP level 2)."""
    contents = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", PAGE, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


PAGE_POLICY = (
    f"default-src 'none'; script-src {_hashes('script')}; style-src {_hashes('style')}; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'"
)
