"""Reports about HTTP: limits of servers, streams behind proxies, refused bodies, long-running operations."""

from __future__ import annotations

from typing import Final

import pytest

from opstream_api.errors import ApiError
from opstream_api.inputs.input_validation import decode_input
from tests.support.reports.report import Report, report

pytestmark = pytest.mark.unit

_CONNECTIONS: Final = "broker/api/http/test_connections.py"
_VALIDATION: Final = "unit/api/inputs/test_input_validation.py"
_PROBLEMS: Final = "unit/api/inputs/test_input_problems.py"
_SERVER: Final = "unit/journal/runtime/test_http_server.py"
_AZURE: Final = "e2e/api/test_azure_python.py"

REPORTS: Final[list[Report]] = [
    report(
        "colinhacks/zod/issues/1872",
        "a million wrong items were a million errors, and three seconds in which nothing else ran",
        f"{_PROBLEMS}::test_a_large_refused_body_costs_little",
    ),
    report(
        "ITISFoundation/osparc-simcore/issues/2398",
        "validating a document by its JSON Schema blocked the web server",
        f"{_PROBLEMS}::test_nested_unions_cost_no_more_the_deeper_they_are",
    ),
    report(
        "Kludex/uvicorn/issues/157",
        "the size of a request's head was not limited with httptools",
        f"{_CONNECTIONS}::test_a_request_without_end_is_dropped",
    ),
    report(
        "xorbitsai/inference/pull/5213",
        "a client that sent a byte now and then kept its connection for minutes",
        f"{_CONNECTIONS}::test_trickled_bytes_gain_no_time",
        f"{_CONNECTIONS}::test_a_client_that_does_not_go_on_is_dropped",
    ),
    report(
        "Kludex/uvicorn/issues/1030",
        "a server without file descriptors accepted no more connections",
        f"{_SERVER}::test_a_process_without_file_descriptors_says_so_and_recovers",
    ),
    report(
        "joyent/libuv/issues/690",
        "accept() without a free file descriptor was tried in an endless loop",
        f"{_SERVER}::test_a_process_without_file_descriptors_says_so_and_recovers",
    ),
    report(
        "nginx/nginx/issues/1505",
        "a stream of events did not reach the browser, because the proxy as it comes keeps it back",
        f"{_CONNECTIONS}::test_an_old_client_follows_a_stream_that_ends_with_the_connection",
        "broker/client/test_proxies.py::test_nginx_as_it_comes",
    ),
    report(
        "amvtek/EventSource/issues/5",
        "a server of events answered without a length in a way that is no valid HTTP/1.1",
        f"{_CONNECTIONS}::test_an_old_client_gets_no_chunks",
    ),
    report(
        "nodejs/llhttp/issues/242",
        "a request with both a length and chunks was read in another way than the standard says",
        f"{_CONNECTIONS}::test_a_length_that_two_servers_read_in_two_ways",
    ),
    report(
        "litespeedtech/openlitespeed/issues/392",
        "a request with two lengths hid another one from the proxy before the server",
        f"{_CONNECTIONS}::test_a_length_that_two_servers_read_in_two_ways",
        f"{_CONNECTIONS}::test_garbage_after_a_submit",
    ),
    report(
        "litestar-org/litestar/issues/1047",
        "a body that is no JSON was answered by 500",
        f"{_VALIDATION}::test_a_body_that_is_not_json_is_refused",
    ),
    report(
        "flop-labs/technocore-chat/issues/130",
        "a body of twenty thousand nested arrays was answered by 500",
        f"{_VALIDATION}::test_no_body_breaks_the_decoder",
    ),
    report(
        "hartwork/jawanndenn/issues/44",
        "a text with half a character was answered by 500",
        "test_half_a_character_is_refused",
    ),
    report(
        "EventSource/eventsource/issues/291",
        "a client that reconnected did not say which event it had last",
        "unit/client/test_client_events.py::test_a_stream_that_is_resumed",
    ),
    report(
        "EventSource/eventsource/issues/27",
        "a client that reconnected twice named the event of its first connection",
        "unit/client/test_client_events.py::test_any_cuts",
    ),
    report(
        "whatwg/html/issues/8297",
        "a client does not learn that the service does not have the event after which it wants to go on",
        f"{_CONNECTIONS}::test_a_position_that_no_event_has",
    ),
    report(
        "josipmusa/idempotency4j/issues/12",
        "another request with a known key got the answer to the first one",
        "broker/api/operations/test_submit.py::test_an_id_belongs_to_one_request",
    ),
    report(
        "Azure/azure-sdk-for-go/issues/22433",
        "the poller of the guidelines' operations did not find the result in the status",
        f"{_AZURE}::test_a_result",
    ),
    report(
        "Azure/azure-sdk-for-js/issues/24965",
        "a member of the status that was null stopped the poller",
        "unit/schemas/test_status_monitor.py::test_a_fresh_operation_shows_no_more_than_it_has",
        "e2e/api/test_azure_javascript.py::test_the_pace",
    ),
    report(
        "Azure/azure-sdk-for-python/pull/26380",
        "a first answer that said Succeeded was polled all the same",
        f"{_AZURE}::test_a_request_that_is_sent_again",
    ),
    report(
        "Azure/azure-sdk-for-python/issues/30814",
        "a poller could not be continued by another program",
        f"{_AZURE}::test_a_continuation_token",
    ),
]


@pytest.mark.parametrize("half", [rb'"\ud83d"', rb'"\ude00"', rb'{"\udcf0": 1}', rb'["ok", "x\ud83dy"]'])
def test_half_a_character_is_refused(half: bytes) -> None:
    """An escape that is half of a pair is no text, so the body is no JSON that could be stored."""
    with pytest.raises(ApiError, match="JSON") as refused:
        decode_input(half)
    assert refused.value.status == 400
