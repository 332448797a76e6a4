# SPDX-License-Identifier: Apache-2.0
"""A person with a browser: signs in, opens pages of an Airflow, and takes pictures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testing.airflow_standalone import PASSWORD_FILE, Airflow

PAGE = "/plugin/ibm-quantum"
SECONDS = 60_000
"""Milliseconds to wait for what must appear: the machine may be busy."""

FLAGS = [
    "--no-sandbox",
    "--no-first-run",
    *(f"--disable-{feature}" for feature in ("background-networking", "component-update", "quic", "sync")),
]
"""The browser asks for nothing but the page."""


def find_chromium() -> str | None:
    """Return the system's browser, or the one that ``CHROMIUM`` names."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def running_chromium() -> Iterator[Any]:
    """Run the system's browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield chromium
        chromium.close()


class Browser:
    """Opens pages as one of Airflow's users, and collects what a page logs as an error."""

    def __init__(self, chromium: Any, airflow: Airflow, shots: Path) -> None:
        self._chromium = chromium
        self._airflow = airflow
        self._shots = shots
        self._contexts: list[Any] = []
        self.errors: list[str] = []

    def open(
        self,
        path: str = PAGE,
        *,
        user: str = "admin",
        theme: str = "light",
        width: int = 1280,
        url: str | None = None,
    ) -> Any:
        """Open a page of Airflow, and wait for the part that is ours."""
        root = url or self._airflow.url
        context = self._chromium.new_context(viewport={"width": width, "height": 900})
        self._contexts.append(context)
        origin = "/".join(root.split("/")[:3])
        context.add_cookies([{"name": "_token", "value": self.token(user), "url": origin}])
        context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(root + path)
        page.wait_for_selector(".ibmq")
        return page

    def token(self, user: str) -> str:
        """Return a token of a user."""
        password = json.loads((self._airflow.home / PASSWORD_FILE).read_text())[user]
        credentials = {"username": user, "password": password}
        answer = self._airflow.http.post(f"{self._airflow.url}/auth/token", json=credentials)
        return str(answer.raise_for_status().json()["access_token"])

    def shoot(self, page: Any, name: str, height: int = 900, *, dark: bool = False) -> None:
        """
        Take a picture of the upper part of the window.

        :param dark: Take another one in the dark mode, ``<name>-dark.png``.
        """
        self._shots.mkdir(parents=True, exist_ok=True)
        clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}
        page.screenshot(path=self._shots / f"{name}.png", animations="disabled", clip=clip)
        if dark:
            page.evaluate(_SET_THEME, "dark")
            page.screenshot(path=self._shots / f"{name}-dark.png", animations="disabled", clip=clip)
            page.evaluate(_SET_THEME, "light")

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()


def contrast(page: Any, selector: str) -> float:
    """Return the contrast of an element's text to what is behind it, as WCAG 2 defines it."""
    return float(page.eval_on_selector(selector, _CONTRAST))


_SET_THEME = """(theme) => {
  document.documentElement.className = theme;
  document.documentElement.style.colorScheme = theme;
}"""

_CONTRAST = """(element) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pixels = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    pixels.clearRect(0, 0, 1, 1);
    pixels.fillStyle = color;
    pixels.fillRect(0, 0, 1, 1);
    return [...pixels.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((value) => value / 255)
      .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
  const back = behind ? rgba(getComputedStyle(behind).backgroundColor) : [255, 255, 255];
  const text = luminance(rgba(getComputedStyle(element).color));
  const [high, low] = [text, luminance(back)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}"""
