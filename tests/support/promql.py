"""PromQL as the tests of the alerts and the dashboard read it: which metrics, labels and values an expression names."""

import re
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from auth_service.verifier.metrics import metrics as verifier_metrics
from tests.support.service import Service

_METRIC = re.compile(r"\b(?:auth_[a-z0-9_]+|process_[a-z0-9_]+|up)\b")
_SELECTOR = re.compile(r"([a-z_:]+)\{(.*?)\}")
_MATCHER = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"(.*?)"')
_MADE_LABEL = re.compile(r',\s*"([a-z_]+)",\s*"[^"]*",\s*"[a-z_]+",\s*"[^"]*"\)')  # of label_replace
_GROUPING = re.compile(r"\b(?:by|without|on)\s*\(([a-z_, ]+)\)")

_OF_PROMETHEUS = {"job", "instance", "alertname", "alertstate", "severity"}
"""Labels that the service does not tell."""

Series = Mapping[str, list[Mapping[str, str]]]
"""The labels of each sample, by the sample's name."""


async def exposition(service: Service) -> str:
    """What the service and a verifier tell, once the probes have been asked and something has been revoked."""
    verifier_metrics()
    await service.logout((await service.register()).refresh_token)
    for path in ("/healthz", "/readyz", "/startupz", "/metrics"):
        await service.internal.get(path)
    return (await service.internal.get("/metrics")).text


def series_of(exposition: str) -> Series:
    """What an exposition tells."""
    series: dict[str, list[Mapping[str, str]]] = {"up": [{}]}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def unknown(expression: str, series: Series, *, not_listed: Iterable[str] = ("status",)) -> list[str]:
    """What `expression` names and `series` has not: metrics, labels, and values of labels whose values are listed."""
    bare = _GROUPING.sub("", re.sub(r'"[^"]*"', "", expression))
    missing = [name for name in _METRIC.findall(bare) if name not in series]
    for metric, matchers in _SELECTOR.findall(expression):
        for label, operator, value in _MATCHER.findall(matchers):
            if metric not in series or label in _OF_PROMETHEUS:
                continue
            told = {labels[label] for labels in series[metric] if label in labels}
            if not told:
                missing.append(f"{metric}: {label}")
            elif label not in not_listed:
                missing += [f"{metric}: {label}={part}" for part in _values(operator, value) if not _any(part, told)]
    labels = {label for name in _METRIC.findall(bare) for sample in series.get(name, []) for label in sample}
    labels.update(_MADE_LABEL.findall(expression))
    for names in _GROUPING.findall(expression):
        missing += [name for name in names.replace(" ", "").split(",") if name not in labels | _OF_PROMETHEUS]
    return missing


def _values(operator: str, value: str) -> list[str]:
    """Each of the values that a matcher lists: every one of them must be told by the service."""
    if "(" in value:
        return [value]
    return value.split("|") if "~" in operator else [re.escape(value)]


def _any(pattern: str, values: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, value) for value in values)
