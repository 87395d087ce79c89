"""The picture of the page in the README: a worker that has replayed the seeds, in Chromium.

Command: ``.venv/bin/python -m benchmarks.page_picture`` (Debian's chromium is needed; the picture goes to
``benchmarks/report/page.png``).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "benchmarks" / "report" / "page.png"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def take(address: str, file: Path, *, scheme: str, width: int) -> None:
    """Open the page and wait for its figures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        page.goto(f"{address}?window=7d")
        expect(page.locator("#updated")).not_to_have_text("–", timeout=30_000)
        page.screenshot(path=file)
        browser.close()


def main() -> None:
    """Replay the seeds, take the picture, end the replay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=PICTURE)
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    parser.add_argument("--width", type=int, default=1440)
    asked = parser.parse_args()
    command = [sys.executable, "-m", "stream.cli", "replay", "seeds", "--keep"]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as replay:
        try:
            lines = iter(replay.stderr.readline, "") if replay.stderr else iter(())
            address = next(line.removeprefix("page: ").strip() for line in lines if line.startswith("page: "))
            take(address, asked.into, scheme=asked.scheme, width=asked.width)
        finally:
            replay.terminate()
    print(f"{asked.into}: {asked.into.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
