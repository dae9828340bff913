"""Makes the pictures of docs/images: the demo's play and a week after it, by a clock of its own, and each page in Chromium.

python tools/screenshots.py             all pictures
python tools/screenshots.py orders      those with one of these words in their names
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
import sqlalchemy as sa
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from crashes.clock import Clock
from demo import orders
from demo.offline import Played
from demo.play import SELLERS, accounts, age_grants
from demo.programs import REPOSITORY, Programs, environment, free_port
from feedamp.state import State, sellers
from feedamp.state.schema import sellers as sellers_table
from feedamp_sandbox import Sandbox, SandboxOptions, running

IMAGES = REPOSITORY / "docs" / "images"
WIDTH, HEIGHT = 1280, 1000
SELLER = "seller-002"
ORDER = "DEMO-00016"  # of a mistyped tracking number
DAYS_AFTER = 6
NAMES = (
    ("Harbor Lamps", "us"),
    ("Maison Moreau", "de"),
    ("Northfold Bags", "us"),
    ("Okafor & Daughters", "uk"),
    ("Leipzig Teehaus", "de"),
    ("Mill Lane Pens", "uk"),
    ("Halifax Wool", "ca"),
    ("Bremen Rad", "de"),
    ("Espresso Silva", "us"),
    ("Stoneware Bath", "uk"),
    ("Castro Cycles", "us"),
    ("Lindgren Home", "ca"),
)
ORDERS_A_DAY = 70
# By the name of the picture: the page below /feedamp/; those of `IN_AIRFLOW` with Airflow's navigation beside them.
PAGES = {
    "overview": "",
    "sellers": "sellers?sort=open_orders&down=true",
    "seller": f"sellers/{SELLER}",
    "orders": "orders",
    "order": f"orders/{SELLER}/{ORDER}",
    "findings": "findings",
    "rejected": "rejected",
    "reconciliation": "reconciliation?month={month}&day={day}",
    "backfill": "reconciliation/backfill?from={day}&to={day}&repair=true&again=completed",
    "connect": "connect",
}
IN_AIRFLOW = {"overview": "light", "order": "dark"}


def main() -> None:
    """Makes the pictures, or serves the pages for them (`serve PORT MOMENT`, in a process of its own)."""
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), datetime.fromisoformat(sys.argv[3]))
        return
    wanted = [name for name in PAGES if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium: on Debian `apt-get install chromium`")
    clock = Clock()
    options = SandboxOptions(sellers=accounts(), requests_per_second=100_000.0, burst=100_000)
    with (
        tempfile.TemporaryDirectory() as made,
        running(options, clock=clock.now, monotonic=clock.elapsed_s) as sandbox,
    ):
        folder = Path(made)
        played = Played(folder, sandbox, clock, pause=timedelta(hours=2))
        a_week_later(played)
        make_unlike(played)
        port = free_port()
        with Programs(
            folder / "logs", environment(folder, port) | settings(folder, sandbox, played)
        ) as programs:
            programs.run(sys.executable, "-m", "airflow", "db", "migrate")
            programs.run(sys.executable, "-m", "airflow", "dags", "reserialize")
            programs.start("server", sys.executable, __file__, "serve", str(port), clock.now().isoformat())
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api/v2/version", programs)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
                )
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, base_url=f"{address}/")
                page.goto("")  # everyone is an administrator here; this logs in
                page.get_by_role("link", name="FeedAMP").wait_for()
                day = (clock.now() - timedelta(days=DAYS_AFTER + 2)).date()
                for name in wanted:
                    given = PAGES[name].format(day=day, month=f"{day:%Y-%m}")
                    take(page, name, given)
                browser.close()


def a_week_later(played: Played) -> None:
    """More orders every day, of which the sellers ship some, and each day is compared; the last one has just begun."""
    seller_ids = [f"seller-{n:03d}" for n in range(1, SELLERS + 1)]
    for n in range(DAYS_AFTER):
        now = played.clock.now()
        morning = now.replace(hour=7, minute=12, second=5) + timedelta(days=1)
        played.clock.skip(seconds=(morning - now).total_seconds())
        rows = orders.make_orders(seller_ids, ORDERS_A_DAY, now=morning, prefix=f"WEEK-{n + 1}", days=1)
        bad = orders.spoil(rows[:7])[:1] if n == 2 else []
        orders.write_jsonl(played.inbox / f"orders-{morning:%Y-%m-%d}.jsonl", rows, bad)
        played.place()
        for _ in range(3):
            requests.post(f"{played.control}/act?rounds=1", timeout=60).raise_for_status()
            played.extract_and_process()
        played.backfill([morning.date() - timedelta(days=1)])


def make_unlike(played: Played) -> None:
    """Sellers as they are: with names; one is paused, one took its consent back, and two grants end soon."""
    played.sandbox.revoke("seller-011")
    state = played.state()
    with state.begin() as connection:
        for n, (name, channel) in enumerate(NAMES, start=1):
            of_seller = sellers_table.c.seller_id == f"seller-{n:03d}"
            named = {"name": name, "sales_channel": channel}
            connection.execute(sa.update(sellers_table).where(of_seller).values(named))
        sellers.pause(connection, "seller-006", paused=True, now=state.now())
    state.close()
    played.extract_and_process()
    age_grants(played)


def settings(folder: Path, sandbox: Sandbox, played: Played) -> dict[str, str]:
    """The installation of the play, and everyone who comes its administrator."""
    connection = {
        "conn_type": "feedamp",
        "host": sandbox.api,
        "login": sandbox.client_id,
        "password": sandbox.client_secret,
        "extra": {"callback_url": "https://airflow.example/feedamp/callback"},
    }
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW_CONN_FEEDAMP_DEFAULT": json.dumps(connection),
        "AIRFLOW__FEEDAMP__STATE_URL": f"sqlite:///{folder / 'state.db'}",
        "AIRFLOW__FEEDAMP__INBOX_URL": str(played.inbox),
        "AIRFLOW__FEEDAMP__LAKE_URL": str(folder / "lake"),
        "AIRFLOW__FEEDAMP__DUCKDB_PATH": str(folder / "warehouse.duckdb"),
        "AIRFLOW__FEEDAMP__ENCRYPTION_KEY": played.fixtures.key,
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY / "tools",))),
    }


def serve(port: int, moment: datetime) -> None:
    """Airflow's API server, in which the clock of the state stands still."""
    import uvicorn

    State.now = lambda _state, **_how: moment.astimezone(UTC)  # type: ignore[method-assign]
    os.environ["AIRFLOW_API_APPS"] = "core"
    uvicorn.run("airflow.api_fastapi.main:app", host="127.0.0.1", port=port)


def wait_for(address: str, programs: Programs) -> None:
    """Returns when the server answers."""
    give_up_at = time.monotonic() + 240
    while True:
        programs.check()
        try:
            requests.get(address, timeout=30).raise_for_status()
            return
        except requests.RequestException:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.3)


def take(page: Page, name: str, path: str) -> None:
    """One picture, of few colors."""
    theme = IN_AIRFLOW.get(name)
    page.evaluate("theme => localStorage.setItem('theme', theme)", theme or "light")
    if theme:
        page.goto(f"plugin/feedamp/feedamp/{path}" if path else "plugin/feedamp")
        page.frame_locator("iframe[title=FeedAMP]").get_by_role("heading", level=1).wait_for()
        page.wait_for_timeout(2_000)  # what Airflow draws around it
        taken = page.screenshot()
    else:
        answer = page.goto(f"feedamp/{path}")
        if answer is None or not answer.ok:
            raise SystemExit(f"{name}: {page.inner_text('main')}")
        height = min(HEIGHT, page.evaluate("document.querySelector('main').getBoundingClientRect().bottom"))
        taken = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, full_page=True)
    IMAGES.mkdir(exist_ok=True)
    # The default method turns colors of few pixels gray, such as that of a word.
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
    picture.save(IMAGES / f"{name}.png", optimize=True)
    print(f"docs/images/{name}.png: {(IMAGES / f'{name}.png').stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
