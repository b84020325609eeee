"""The alert rules: they ask for what the service tells, each is tested, and each has its section in the runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command import command
from tests.support.prometheus import MISSING, PROMTOOL
from tests.support.promql import exposition, series_of, unknown
from tests.support.service import Service

_DEPLOY = Path(__file__).parent.parent / "deploy"
_FOLDER = _DEPLOY / "prometheus"
_TESTS = ("alerts_test.yaml", "objectives_test.yaml")
_RUNBOOK = (_DEPLOY / "RUNBOOK.md").read_text("utf-8")

_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((_FOLDER / "alerts.yaml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
_ALERTS = [rule for rule in _RULES if "alert" in rule]


@pytest.mark.skipif(PROMTOOL is None, reason=MISSING)
@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yaml"], ["test", "rules", *_TESTS]], ids=" ".join)
def test_promtool_finds_the_rules_right(arguments: list[str]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=_FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_and_clears_in_a_test() -> None:
    """What fires at a moment of a test is listed whole: an alert that is missing from a later one has cleared."""
    fired, cleared = set[str](), set[str]()
    for name in _TESTS:
        for test in yaml.safe_load((_FOLDER / name).read_text("utf-8"))["tests"]:
            firing = set[str]()
            for moment in test["promql_expr_test"]:
                now = set(re.findall(r'alertname="(\w+)"', str(moment["exp_samples"])))
                cleared |= firing - now
                fired |= now
                firing = now
    names = {alert["alert"] for alert in _ALERTS}
    assert fired == names
    assert cleared == names


async def test_every_metric_and_label_that_a_rule_names_is_told(service: Service) -> None:
    series = series_of(await exposition(service))
    recorded = {rule["record"] for rule in _RULES if "record" in rule}
    for rule in _RULES:
        assert unknown(rule["expr"], series) == [], rule
        assert set(re.findall(r"\bauth:[a-z0-9_:]+", rule["expr"])) <= recorded, rule


async def test_a_name_that_is_not_told_is_found(service: Service) -> None:
    series = series_of(await exposition(service))
    assert unknown('sum by (job) (rate(auth_refreshes_total{outcome="rotated"}[5m])) > 0', series) == []
    assert unknown("rate(auth_refreshs_total[5m])", series) == ["auth_refreshs_total"]
    assert unknown('auth_refreshes_total{result="rotated"}', series) == ["auth_refreshes_total: result"]
    assert unknown('auth_refreshes_total{outcome=~"rotated|stolen"}', series) == [
        "auth_refreshes_total: outcome=stolen"
    ]
    assert unknown("sum by (result) (auth_refreshes_total)", series) == ["result"]


def test_every_alert_says_what_it_is_and_where_to_read_on() -> None:
    for alert in _ALERTS:
        assert alert["labels"]["severity"] in ("page", "ticket"), alert
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, alert
        assert alert["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{alert['alert'].lower()}"


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    sections = _RUNBOOK.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    titles = re.findall(r"^### (.*)$", sections, re.M)
    assert sorted(titles) == sorted({alert["alert"] for alert in _ALERTS})
    for section in re.split(r"^### ", sections, flags=re.M)[1:]:
        for part in ("**It means**", "**Users**", "**Look**", "**Do**"):
            assert section.count(part) == 1, (section.partition("\n")[0], part)


async def test_every_query_of_the_runbook_asks_for_what_is_told(service: Service) -> None:
    series = series_of(await exposition(service))
    queries = re.findall(r"```promql\n(.*?)```", _RUNBOOK, re.S)
    assert len(queries) > 5
    for query in queries:
        assert unknown(query, series) == [], query


def test_every_command_of_the_runbook_exists() -> None:
    blocks = "\n".join(re.findall(r"```(?:bash|sh)\n(.*?)```", _RUNBOOK, re.S))
    called = set()
    in_text = re.findall(r"[^`]`auth-service ([^`]+)`", _RUNBOOK)
    for line in [*re.findall(r"^\s*auth-service ([^|#\n]+)", blocks, re.M), *in_text]:
        [names] = re.findall(r"^[a-z]+(?: [a-z-]+)*", line)
        words = names.split()[: 1 if names.split()[0] in ("check", "migrate") else 2]
        shown = command(*words, "--help")
        assert shown.code == 0, line
        assert all(option in shown.out for option in re.findall(r"--[a-z-]+", line)), line
        called.add(" ".join(words))
    assert called >= {"check", "migrate", "keys list", "keys revoke", "keys rewrap", "sessions revoke", "audit list"}


async def test_the_list_of_metrics_is_what_is_told(service: Service) -> None:
    listed = set(re.findall(r"`(auth_[a-z_]+)`", _RUNBOOK.partition("\n## Metrics\n")[2]))
    told = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for name in series_of(await exposition(service))
        if name.startswith("auth_")
    }
    assert listed == told
