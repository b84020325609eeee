"""The Grafana dashboard: three questions in order, every query of metrics that are told. A real Prometheus
answers each in test_prometheus.py."""

import json
import re
from pathlib import Path
from typing import Any

from tests.support.promql import exposition, series_of, unknown
from tests.support.service import Service

_DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "deploy" / "grafana" / "auth-service.json").read_text("utf-8")
)
_PANELS: list[dict[str, Any]] = _DASHBOARD["panels"]


def test_it_answers_three_questions_in_order() -> None:
    rows = [panel["title"] for panel in _PANELS if panel["type"] == "row"]
    assert rows[:3] == ["Is it healthy?", "Is it under attack?", "Is it near its limit?"]


async def test_every_metric_and_label_that_it_names_is_told(service: Service) -> None:
    series = series_of(await exposition(service))
    asked = 0
    for panel in _PANELS:
        for target in panel.get("targets", ()):
            asked += 1
            assert unknown(re.sub(r"\$__rate_interval", "5m", target["expr"]), series) == [], panel["title"]
    assert asked > 30


def test_it_works_with_any_data_source_job_and_instance() -> None:
    variables = {variable["name"]: variable for variable in _DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", "job", "instance", "verifier"}
    assert variables["datasource"]["type"] == "datasource"
    for panel in _PANELS:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]
            for selector in re.findall(r"auth_\w+\{(.*?)\}", target["expr"]):
                wanted = "$verifier" if "auth_verifier" in target["expr"] else "$instance"
                assert wanted in selector, panel["title"]


def test_every_panel_is_told_of_and_none_lies_on_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in _PANELS:
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in _PANELS]
    assert len(ids) == len(set(ids))
