"""The page of a billing period: what each team used, beside its statement."""

from __future__ import annotations

import re
import time

from tests.ui.house import House

ROW = re.compile(
    r'<small class="mono">(?P<team>[^<]+)</small></th><td class="num strong" title="(?P<charge>[^"]+)">[^<]+</td>'
    r'<td class="num">(?P<requests>[^<]+)</td>'
)


def test_a_period_tells_what_each_team_used(house: House) -> None:
    """The amounts of the teams are those of the statements; who sees one team sees that one."""
    month = time.strftime("%Y-%m", time.gmtime())
    with house.client("billing") as client:
        page = client.get(f"/console/billing/{month}")
        rows = {found["team"]: found for found in ROW.finditer(page.text)}
        statement = client.get(f"/console/billing/{month}/default.json").json()
    assert int(rows["default"]["requests"]) >= 6
    assert rows["default"]["charge"] != "$0.00"
    assert rows["default"]["charge"].removeprefix("$") in str(statement)
    with house.client("team_admin") as client:
        assert "default" not in {found["team"] for found in ROW.finditer(client.get(f"/console/billing/{month}").text)}
