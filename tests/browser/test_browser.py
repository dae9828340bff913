"""The pages in a real browser: inside Airflow and alone, as each role, by keyboard, narrow, light and dark."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import requests
from console import SELLER
from desks import COLOR, SCREENS, SIDEWAYS, THEMES, desk_of
from filled_pages import ASSET_RUN, NEW_SELLER, PRIVATE, SAID_TO_EDITORS
from page_paths import EDITORS, PATHS, TO_COMPARE
from playwright.sync_api import FrameLocator, Page, expect
from real_browser import BASE_PATH, PASSWORD

from feedamp.state import sellers

ORDER = f"orders/{SELLER}/M-1"
PAGES = (
    "",
    "sellers",
    f"sellers/{SELLER}",
    "orders",
    ORDER,
    "findings",
    "rejected",
    "reconciliation",
    "connect",
    "nowhere",
)
NOT_LOGGED_IN = "Log in to Airflow first."
# What an address alone gets, by role and method.
REFUSED = {
    ("viewer", "GET"): (403, "Your role in Airflow may not see this page."),
    ("viewer", "POST"): (403, "Your role in Airflow may not do this; nothing was changed."),
    (None, "GET"): (401, NOT_LOGGED_IN),
    (None, "POST"): (401, "Log in to Airflow first; nothing was changed."),
}
# Whatever the keyboard must reach.
REACHABLE = "a[href], button, input:not([type=hidden]), label:not(.of-cards) select, textarea, summary, [tabindex='0']"
FOCUSED = """() => {
    const at = document.activeElement;
    if (!at || at === document.body) return null;
    const look = getComputedStyle(at);
    const seen = look.outlineStyle !== "none" && parseFloat(look.outlineWidth) > 0;
    return [[...document.querySelectorAll(REACHABLE)].indexOf(at), seen];
}""".replace("REACHABLE", f'"{REACHABLE}"')


# Words of the calendar that go on in a second line, or leave their day.
BROKEN_WORDS = """() => [...document.querySelectorAll(".calendar a")].flatMap(day => [...day.childNodes]
    .filter(node => node.nodeType === Node.TEXT_NODE)
    .flatMap(node => [...node.data.matchAll(/\\S+/g)].filter(word => {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const lines = [...range.getClientRects()];
        return lines.length > 1 || lines[0].right > day.getBoundingClientRect().right;
    }).map(word => word[0])))"""


# Tables of which something is out of sight.
CUT_OFF = """tables => [...document.querySelectorAll(`.wide:has(${tables})`)]
    .filter(at => at.scrollWidth > at.clientWidth).map(at => [at.scrollWidth, at.clientWidth, at.innerText])"""
# Ids that go on in a second line.
BROKEN_IDS = """() => [...document.querySelectorAll("td.id")].filter(at => {
    const range = document.createRange();
    range.selectNodeContents(at);
    return new Set([...range.getClientRects()].map(line => line.bottom)).size > 1;
}).map(at => at.innerText)"""
# Where the labels of each form begin that are shown, and where its links and buttons are in the middle.
HEIGHTS = """() => [...document.forms].flatMap(form => [
    [...form.children].filter(at => at.matches("label") && at.checkVisibility()).map(at => at.getBoundingClientRect().top),
    [...form.children].filter(at => at.matches("a, button")).map(at => {
        const box = at.getBoundingClientRect();
        return Math.round(box.top + box.bottom);
    }),
])"""


def in_airflow(page: Page) -> FrameLocator:
    """The pages in their frame of Airflow's own."""
    return page.frame_locator("iframe[title=FeedAMP]")


def heading(where: Page | FrameLocator, text: str) -> None:
    expect(where.get_by_role("heading", level=1)).to_have_text(text)


@pytest.fixture(scope="module")
def desks(site):
    """The roles, each logged in once, at a screen of its own."""
    judged: set[str] = set()
    with ExitStack() as stack:
        yield {role: stack.enter_context(desk_of(role, site, judged)) for role in SCREENS}


@dataclass
class Kept:
    """The file of the state, and a copy of what it held before the first path."""

    live: sqlite3.Connection
    copy: sqlite3.Connection

    def version(self) -> int:
        """Another one as soon as another connection has committed anything."""
        [version] = self.live.execute("PRAGMA data_version").fetchone()
        return version

    @contextmanager
    def restored(self) -> Iterator[None]:
        before = self.version()
        yield
        if self.version() != before:
            self.copy.backup(self.live)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Fails if a row was changed meanwhile."""
        before = self.version()
        with closing(sqlite3.connect(":memory:")) as copy:
            self.live.backup(copy)
            yield
            if self.version() != before:
                assert list(self.live.iterdump()) == list(copy.iterdump())


@pytest.fixture(scope="module")
def state(filled):
    with (
        closing(sqlite3.connect(filled.folder / "state.db")) as live,
        closing(sqlite3.connect(":memory:")) as copy,
    ):
        live.backup(copy)
        yield Kept(live, copy)


@pytest.fixture
def desk(request, desks, state):
    """The desk of a role; what is done at it is undone."""
    with state.restored():
        yield desks[request.param]


def roles_at(path: str) -> list[str | None]:
    """Those who play a path. Of the two who may do everything and have the same pages only one does, in turn: what a page
    offers is done in part with the mouse on a wide screen, in part by keyboard on a narrow one, as a viewer reads all of it."""
    for_editors = [name for name in PATHS if PATHS[name].may == EDITORS]
    is_ops = path in for_editors and for_editors.index(path) % 2
    return [role for role in SCREENS if role != ("admin" if is_ops else "op")]


@pytest.mark.parametrize(
    ("desk", "path"),
    [
        pytest.param(role, path, id=f"{path} as {role or 'anonymous'}")
        for path in PATHS
        for role in roles_at(path)
    ],
    indirect=["desk"],
)
def test_a_path_is_for_whom_it_is_meant(desk, path, filled, state, site):
    """Who may does it and sees what it did; who may not is offered nothing, changes nothing by the address, and reads why."""
    played = PATHS[path]
    played.prepare(filled)
    if desk.role in played.may:
        played.play(desk, filled)
    else:
        with state.unchanged():
            opened = desk.open(played.at)
            assert opened.status == (401 if desk.role is None else 200)
            if desk.role is None:
                assert (NOT_LOGGED_IN if played.is_page else "Not authenticated") in opened.text()
            assert desk.private_words() == set()
            assert desk.page.locator("form[method=post]").count() == 0
            for kind in ("button", "link") if played.offers else ():
                assert desk.page.get_by_role(kind, name=played.offers, exact=True).count() == 0
            for address, fields in played.sent:
                answer = (
                    desk.open(address) if fields is None else desk.send(address, token="copied", **fields)
                )
                refused = REFUSED[desk.role, "GET" if fields is None else "POST"]
                assert (answer.status, desk.page.get_by_role("alert").inner_text()) == refused, address
    assert desk.private_words() <= (set(SAID_TO_EDITORS) if desk.role in EDITORS else set())
    assert desk.page.url.startswith(f"{site.root}{BASE_PATH}/feedamp/")
    if played.is_page:
        desk.look_over()


@pytest.mark.parametrize("desk", SCREENS, ids=lambda role: role or "anonymous", indirect=True)
def test_pages_keep_no_one_out(desk):
    """axe finds nothing serious, and at 400 px nothing but tables and charts moves sideways."""
    for path in PAGES if desk.role else ("", "callback?code=a&state=b"):
        desk.open(path)
        assert desk.page.evaluate(COLOR) == THEMES[SCREENS[desk.role][1]]
        if desk.is_narrow:
            assert desk.page.evaluate(CUT_OFF, "table") == [], path  # rows are cards
            if path == ORDER:  # the longest word that a page has
                assert desk.page.get_by_role("link", name=ASSET_RUN).count()
            if path == "reconciliation":
                assert desk.page.evaluate(BROKEN_WORDS) == []
        desk.look_over()


def test_from_the_login_to_the_entry_to_the_frame(site):
    with site.visit(None) as page:
        page.goto("")
        page.locator("input[name=username]").fill("viewer")
        page.locator("input[type=password]").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="FeedAMP").click()
        frame = in_airflow(page)
        heading(frame, "Overview")
        frame.get_by_role("link", name="Orders", exact=True).click()
        frame.get_by_label("Order number").fill("M-1")
        page.keyboard.press("Enter")
        frame.get_by_role("link", name="M-1", exact=True).click()
        heading(frame, "Order M-1")
        # The address bar follows the frame, a moment later.
        expect(page).to_have_url(re.compile(f"/{ORDER}$"))
        page.reload()
        heading(in_airflow(page), "Order M-1")


@pytest.fixture(scope="module")
def in_ui(site):
    """The entry in Airflow's own UI, opened once: to open that takes a browser as long as a dozen of our pages."""
    with site.visit("op") as page:
        page.goto("plugin/feedamp")
        yield page


def test_forms_work_inside_the_frame(site, in_ui):
    page = in_ui
    given = page.locator("iframe[title=FeedAMP]").get_attribute("sandbox")
    assert given == "allow-scripts allow-same-origin allow-forms allow-downloads"
    frame = in_airflow(page)
    frame.get_by_role("link", name="Sellers", exact=True).click()
    heading(frame, "Sellers")  # the overview links to sellers, too
    frame.get_by_role("link", name=SELLER, exact=True).click()
    for press, said in (("Pause", "paused"), ("Resume", "work continues")):
        frame.get_by_role("button", name=press).click()
        expect(frame.get_by_role("status")).to_contain_text(said)
        heading(frame, "Done")
        frame.get_by_role("link", name="Back").click()
        heading(frame, f"Seller {SELLER}")
    frame.get_by_role("link", name="Reconciliation", exact=True).click()
    for label in ("From", "To"):
        frame.get_by_label(label, exact=True).fill(TO_COMPARE)
    frame.get_by_role("button", name="Backfill this range").click()
    expect(frame.get_by_role("main")).to_contain_text("Repair is off")
    frame.get_by_role("button", name="Start the backfill").click()
    expect(frame.get_by_role("status")).to_contain_text("was started")
    site.end_backfills()


def test_who_is_not_logged_in_reads_nothing(site):
    with site.visit(None) as page:
        page.goto("plugin/feedamp")
        expect(page.locator("input[type=password]")).to_be_visible()
        assert page.goto(f"feedamp/{ORDER}").status == 401
        expect(page.get_by_role("alert")).to_have_text(NOT_LOGGED_IN)
        page.get_by_role("link", name="Log in").click()
        expect(page.locator("input[type=password]")).to_be_visible()
        assert page.goto("feedamp/callback?code=a&state=b").status == 400
        expect(page.get_by_role("heading", name="Not connected")).to_be_visible()


def test_a_seller_consents_and_comes_back(site, in_ui):
    page = in_ui
    with site.visit(None) as of_seller:
        frame = in_airflow(page)
        frame.get_by_role("link", name="Connect a seller").click()
        frame.get_by_label("Seller id").fill(NEW_SELLER)
        page.keyboard.press("Enter")
        field = frame.get_by_label("Link")
        whole = "at => at.scrollHeight <= at.clientHeight + 1 && at.scrollWidth <= at.clientWidth"
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 800})
            assert field.evaluate(whole), width
        link = field.input_value()
        frame.get_by_role("button", name="Copy the link").click()
        expect(frame.get_by_text("Copied.")).to_be_visible()
        frame.get_by_label("Address").focus()
        page.keyboard.press("Control+V")
        assert frame.get_by_label("Address").input_value() == link
        of_seller.goto(f"{link}&seller_id={NEW_SELLER}")  # the sandbox's way to be signed in as a seller
        heading(of_seller, "Connected")
        assert parse_qs(urlsplit(of_seller.url).query).keys() == {"connected"}
        frame.get_by_role("link", name="Sellers").click()
        expect(frame.get_by_role("row").filter(has_text=NEW_SELLER)).to_contain_text("active")


def test_a_wide_screen_shows_whole_tables_and_even_rows_of_fields(site):
    with site.visit("admin", viewport={"width": 1280, "height": 800}) as page:
        for path in ("sellers", f"sellers/{SELLER}", "orders", "findings", "rejected"):
            page.goto(f"feedamp/{path}")
            assert page.locator("td.id").count(), path
            assert page.evaluate(BROKEN_IDS) == [], path
            assert page.evaluate(CUT_OFF, "table") == [], path
            for level in page.evaluate(HEIGHTS):
                assert len(set(level)) <= 1, (path, level)
        for path, button in (("findings", "Waive the chosen"), ("rejected", "Dismiss the chosen")):
            page.goto(f"feedamp/{path}")
            form = page.get_by_role("button", name=button).bounding_box()
            assert form["y"] < page.get_by_role("table").bounding_box()["y"], path


def test_long_names_move_no_page_sideways(site, filled, state):
    longest = "L" * 128
    with state.restored(), site.visit("admin") as page:
        with filled.resources.state.begin() as connection:
            sellers.add(connection, longest, conn_id="feedamp_default", now=datetime.now(UTC), name=longest)
        filled.deliver("long.jsonl", "LONG-1", seller=longest)
        for width in (1280, 640, 400):
            page.set_viewport_size({"width": width, "height": 800})
            for path in (
                "",
                "sellers?q=L",
                f"sellers/{longest}",
                "orders?number=LONG",
                f"orders/{longest}/LONG-1",
            ):
                page.goto(f"feedamp/{path}")
                expect(page.get_by_role("main")).to_contain_text(longest)
                assert not page.evaluate(SIDEWAYS), (width, path)
                if width != 640:  # where tables may move sideways
                    assert page.evaluate(CUT_OFF, "table") == [], (width, path)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(site):
    with site.visit("admin") as page:
        for path in PAGES:
            page.goto(f"feedamp/{path}")
            count = page.locator(REACHABLE).count()
            reached: dict[int, bool] = {}
            inner = (
                3 * page.locator("input[type=date]").count()
            )  # day, month and year have stops of their own
            for _ in range(count + inner):
                page.keyboard.press("Tab")
                index, is_seen = page.evaluate(FOCUSED) or (None, None)
                reached.setdefault(index, is_seen)
            assert (list(reached), set(reached.values())) == (list(range(count)), {True}), path


# Orders that were closed, or wait for their seller, like ten others.
ALIKE = re.compile(rf"orders/{SELLER}/M-(1\d|[345][1-9])$")


def crawl(site, user: str) -> dict[str, str]:
    """Every page of ours that links lead to from the overview, by address; a month's neighbors, but not all months, and of
    orders that are alike only some."""
    headers = {"Authorization": f"Bearer {site.token(user)}"}
    waiting, read = [f"{site.path}/feedamp/", f"{site.path}/feedamp/health"], {}
    with requests.Session() as session:
        session.headers.update(headers)
        while waiting:
            address = waiting.pop()
            answer = session.get(f"{site.root}{address}", timeout=60)
            assert answer.status_code == 200, address
            read[address] = answer.text
            for link in re.findall(r'(?:href|src)="([^"]+)"', answer.text):
                to = urljoin(address, link.replace("&amp;", "&")).partition("#")[0]
                is_ours = to.startswith(f"{site.path}/feedamp/")  # a run's page is Airflow's
                is_new = to not in read and to not in waiting
                is_another = not ALIKE.search(to) and not ("month=" in to and "month=" in address)
                if is_ours and is_new and is_another:
                    waiting.append(to)
            assert len(read) < 1_000
    return read


def test_a_viewer_reads_nothing_private_wherever_links_lead(site):
    read = crawl(site, "viewer")
    assert len(read) > 35
    assert {
        (address, word) for address, text in read.items() for word in PRIVATE if word.lower() in text.lower()
    } == set()
    assert [address for address, text in read.items() if 'method="post"' in text] == []
    read = crawl(site, "op")
    export = read.pop(f"{site.path}/feedamp/rejected/export")  # rows as delivered are no page
    assert "Brackenridge" in export
    of_op = "".join(read.values())
    assert {"Xaveria", "Gwendolyn"} <= {
        word for word in PRIVATE if word in of_op
    }  # there is something to hide
    assert not [word for word in PRIVATE if word in of_op and word not in SAID_TO_EDITORS]


@pytest.mark.parametrize(
    ("role", "reads", "changes"),
    [
        ("public", False, False),
        ("viewer", False, False),
        ("user", False, False),
        ("op", True, True),
        ("admin", True, True),
    ],
)
def test_roles_of_the_fab_auth_manager(fab_site, role, reads, changes):
    opened = {path: fab_site.get(f"/feedamp/{path}", role) for path in ("", "rejected")}
    assert {answer.status_code for answer in opened.values()} == {200 if reads else 403}
    assert ("Dismiss the chosen rows" in opened["rejected"].text) is changes


def test_fab_shows_the_entry_to_those_who_may_read(fab_site):
    for role, count in (("viewer", 0), ("op", 1)):
        with fab_site.visit(role) as page:
            page.goto("")
            page.get_by_role("link", name="Dags").first.wait_for()
            expect(page.get_by_role("link", name="FeedAMP")).to_have_count(count)
    with fab_site.visit("op") as page:
        page.goto(f"feedamp/sellers/{SELLER}")
        for press, said in (("Pause", "paused"), ("Resume", "work continues")):
            page.get_by_role("button", name=press).click()
            expect(page.get_by_role("status")).to_contain_text(said)
            page.goto(f"feedamp/sellers/{SELLER}")
