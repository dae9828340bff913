"""Who sits before the pages: a role of Airflow at a screen of its own, with a mouse or with the keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from filled_pages import PRIVATE
from playwright.sync_api import Locator, Page, Response, expect
from real_browser import Site

THEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 22, 29)"}
WIDE, NARROW = 1280, 400
# Those who may do everything, and have the same pages, differ in all of it.
SCREENS = {
    "admin": (WIDE, "light", "mouse"),
    "op": (NARROW, "light", "keyboard"),
    "viewer": (NARROW, "dark", "keyboard"),
    None: (NARROW, "light", "mouse"),
}
SEND = """([action, fields]) => {
    const form = document.createElement("form");
    Object.assign(form, {method: "post", action});
    for (const [name, value] of Object.entries(fields)) {
        const field = document.createElement("input");
        Object.assign(field, {name, value});
        form.append(field);
    }
    document.body.append(form);
    form.submit();
}"""
FAULTS = """() => axe.run({resultTypes: ["violations"]}).then(found => found.violations
    .filter(fault => ["serious", "critical"].includes(fault.impact))
    .map(fault => [fault.id, fault.nodes[0].html]))"""
SIDEWAYS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
COLOR = "getComputedStyle(document.body).backgroundColor"
# Takes out rows that have the elements of an earlier one: axe would look at each of fifty.
ONE_OF_A_KIND = """() => document.querySelectorAll("tbody").forEach(table => {
    const seen = new Set();
    for (const row of table.querySelectorAll("tr")) {
        const kind = [...row.querySelectorAll("*")].map(at => at.tagName + at.className).join();
        if (seen.has(kind)) row.remove();
        seen.add(kind);
    }
})"""
# Which elements lie in which, however many there are of each.
ELEMENTS = """() => [...new Set([...document.querySelectorAll("*")].map(at =>
    [at.parentElement, at].map(one => one && [one.tagName, one.className.baseVal ?? one.className, one.getAttribute("role")].join())
    .join(" > ")))].sort().join()"""


@dataclass(frozen=True)
class Desk:
    """One role, or None who is not logged in, and its tab of a browser; `judged` are the elements of pages that axe has seen
    at any desk."""

    role: str | None
    page: Page
    site: Site
    judged: set[str]
    seen: set[str] = field(default_factory=set)

    @property
    def is_narrow(self) -> bool:
        return SCREENS[self.role][0] == NARROW

    # What hands do

    def open(self, path: str) -> Response:
        """A page by its address, below FeedAMP's."""
        answer = self.page.goto(f"{self.site.url}/feedamp/{path}")
        assert answer is not None
        return answer

    def send(self, path: str, **fields: str) -> Response:
        """A form that no page offered, as someone writes it who knows the address."""
        with self.page.expect_navigation() as sent:
            self.page.evaluate(SEND, [f"{self.site.path}/feedamp/{path}", fields])
        return sent.value

    def press(self, name: str | re.Pattern[str]) -> None:
        self._use(self.page.get_by_role("button", name=name, exact=True), "Enter")

    def follow(self, name: str | re.Pattern[str]) -> None:
        self._use(self.page.get_by_role("link", name=name, exact=True).first, "Enter")

    def tick(self, box: Locator) -> None:
        self._use(box, "Space")

    def write(self, fields: dict[str, str], button: str | re.Pattern[str]) -> None:
        """Fills in what labels say of the form that has this button, and presses it."""
        pressed = self.page.get_by_role("button", name=button, exact=True)
        form = self.page.locator("form").filter(has=pressed)
        for label, value in fields.items():
            at = form.get_by_label(re.compile(f"^{re.escape(label)}"))
            if self._has_mouse:
                is_choice = at.evaluate("at => at.matches('select')")
                at.select_option(value) if is_choice else at.fill(value)
            else:
                self._reach(at)  # which selects what is written there
                self.page.keyboard.type(value)
        self._use(pressed, "Enter")

    def _use(self, at: Locator, key: str) -> None:
        if self._has_mouse:
            at.click()
        else:
            self._reach(at)
            self.page.keyboard.press(key)

    @property
    def _has_mouse(self) -> bool:
        return SCREENS[self.role][2] == "mouse"

    def _reach(self, at: Locator) -> None:
        at.wait_for()
        element = at.element_handle()  # found once, not at each stop
        for _ in range(300):
            if element.evaluate("at => at === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {at}")

    # What eyes see

    @property
    def main(self) -> Locator:
        return self.page.get_by_role("main")

    def reads(self, *words: str | re.Pattern[str]) -> None:
        for one in words:
            expect(self.main).to_contain_text(one)

    def is_told(self, words: str | re.Pattern[str]) -> None:
        """The answer to what was done."""
        expect(self.main.get_by_role("status").first).to_contain_text(words)

    def is_at(self, heading: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)

    def private_words(self) -> set[str]:
        """Those of a customer, or of who wrote about one, that are anywhere in this page."""
        page = self.page.content().lower()
        return {word for word in PRIVATE if word.lower() in page}

    def look_over(self) -> None:
        """axe finds nothing serious on this page, and nothing moves sideways but tables and charts.

        It is asked at this screen, and at one of the other width and the other theme: colors depend on the theme alone, all else
        on the width. A page of the same elements is looked at once, and by axe once for all roles. What remains of it
        afterwards is for no other test.
        """
        page, (own, theme, _) = self.page, SCREENS[self.role]
        if (elements := page.evaluate(ELEMENTS)) in self.seen:
            return
        self.seen.add(elements)
        screens = ((WIDE + NARROW - own, "dark" if theme == "light" else "light"), (own, theme))
        faults: list[Any] = []
        for width, _ in screens:
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate(SIDEWAYS):
                faults.append((width, "moves sideways"))
        if elements not in self.judged:
            self.judged.add(elements)
            page.evaluate(ONE_OF_A_KIND)
            page.evaluate(AXE_SCRIPT)
            for width, shown in screens:
                page.set_viewport_size({"width": width, "height": 800})
                page.evaluate(f"document.documentElement.dataset.theme = '{shown}'")
                assert page.evaluate(COLOR) == THEMES[shown]
                faults += [(width, shown, *fault) for fault in page.evaluate(FAULTS)]
        assert faults == [], page.url


@contextmanager
def desk_of(role: str | None, site: Site, judged: set[str]) -> Iterator[Desk]:
    """The role before its screen, logged in once; a seller has no theme in Airflow, but one in the browser."""
    width, theme, _ = SCREENS[role]
    look = {"viewport": {"width": width, "height": 800}, "color_scheme": "light" if role else theme}
    with site.visit(role, locale="en-US", **look) as page:
        if role:
            page.add_init_script(f"localStorage.setItem('theme', '{theme}')")
        yield Desk(role, page, site, judged)
