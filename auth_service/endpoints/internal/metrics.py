"""`/metrics`, for Prometheus."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from auth_service.endpoints.operation import Answer, Operation
from auth_service.exposition import exposition


class MetricsEndpoints:
    """The metrics of this process, or of all workers where there are several."""

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET",
            "/metrics",
            self.metrics,
            "The metrics",
            "Metrics",
            {200: Answer("In the Prometheus or the OpenMetrics format.", {"type": "string"}, "text/plain")},
        )

    async def metrics(self, request: Request) -> Response:
        body, content_type = exposition(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})
