"""Reports about security: webhooks that reach inside, copies of them, and permissions of the broker."""

from __future__ import annotations

from typing import Final

from tests.support.reports.report import Report, report

_WEBHOOKS: Final = "broker/webhooks/test_webhooks.py"
_ORIGIN: Final = "broker/api/http/test_request_origin.py"
_GUARD: Final = "property/webhooks/test_address_guard.py"

REPORTS: Final[list[Report]] = [
    report(
        "liwala/ay-framework/issues/301",
        "the name of a webhook's host was checked, and resolved to an inner address later",
        f"{_WEBHOOKS}::test_a_name_is_resolved_once",
    ),
    report(
        "shashankswe2020-ux/whoop-mcp/issues/126",
        "inner addresses in other spellings, and IPv4 inside of IPv6, passed the check of a webhook",
        f"{_GUARD}::test_no_ipv4_address_hides_in_an_ipv6_one",
        f"{_GUARD}::test_what_is_refused",
    ),
    report(
        "frankbria/codeframe/pull/706",
        "only the scheme of a webhook's URL was checked, so it could name the cloud's metadata",
        f"{_WEBHOOKS}::test_private_addresses_are_refused",
    ),
    report(
        "HearthSim/HSReplay.net/issues/342",
        "the time of a webhook was not part of what is signed, so a copy could be sent again",
        "e2e/webhooks/test_webhooks_page.py::test_the_receiver",
    ),
    report(
        "nats-io/nats.java/issues/192",
        "a client with the usual permissions reads the answers to all others",
        "broker/events/test_permissions.py::test_what_it_may_not_do",
    ),
    report(
        "nats-io/nats.go/issues/1189",
        "a client with a prefix for its inboxes used the common one for some requests, and was refused",
        "broker/events/test_permissions.py::test_a_subscriber_does_its_work",
    ),
    report(
        "mgedmin/restview/issues/51",
        "a server for this machine only answered whatever name a browser had resolved to it",
        f"{_ORIGIN}::test_a_site_whose_name_resolves_to_this_machine_reads_nothing",
    ),
    report(
        "quick-lint/quick-lint-js/issues/951",
        "a debug server was open to sites whose name resolves to this machine",
        f"{_ORIGIN}::test_a_site_whose_name_resolves_to_this_machine_reads_nothing",
    ),
    report(
        "ralscha/extdirectspring/issues/150",
        "a body of JSON was taken as text/plain, which any site can send without being asked",
        f"{_ORIGIN}::test_a_page_of_another_site_does_nothing",
    ),
    report(
        "h3js/h3/issues/875",
        "a body was parsed without a look at its content type",
        f"{_ORIGIN}::test_a_body_without_a_type_is_what_another_site_can_send",
    ),
]
