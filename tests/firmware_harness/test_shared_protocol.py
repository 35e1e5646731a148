"""The numbers of app/protocol.h and those of the host's half, one by one."""

from enum import IntEnum

import pytest

from firmware_harness import cost
from firmware_harness.boards import APP, FIRMWARE
from firmware_harness.protocol import (
    LONGEST_RUN,
    Cause,
    FrameError,
    Injection,
    Kind,
    Responder,
    Status,
)
from tests.c_header import enum, fields
from tests.core_build import CORE

PROTOCOL = APP / "protocol.h"


@pytest.mark.parametrize(
    ("host", "prefix"),
    [(FrameError, "ERROR_"), (Responder, "SERVICE_"), (Cause, "CAUSE_"), (Injection, "INJECT_")],
)
def test_an_enum_is_that_of_the_host(host: type[IntEnum], prefix: str) -> None:
    found = enum(PROTOCOL, f"{prefix}{next(iter(host)).name}", prefix)
    assert found == {member.name: member.value for member in host}


def test_messages_are_those_of_the_host() -> None:
    found = enum(PROTOCOL, "ASK_STATUS") | enum(PROTOCOL, "TELL_STATUS")
    assert found == {kind.name: kind.value for kind in Kind}


def test_a_status_has_the_fields_of_the_host() -> None:
    found = fields(PROTOCOL, "status", {})
    assert [name for name, _, _ in found] == list(Status.__annotations__)
    assert {(kind, count) for _, kind, count in found} == {("uint32_t", 1)}


def test_a_step_is_measured_in_as_many_parts_as_the_core_marks() -> None:
    marks = enum(CORE / "parts.h", "GRUARD_READ")
    count = enum(FIRMWARE / "cost" / "cost.h", "COST_PARTS")["COST_PARTS"]
    assert count == len(marks) == len(cost.PARTS)


def test_frames_are_stuffed_alike() -> None:
    assert enum(APP / "link.c", "LONGEST_RUN")["LONGEST_RUN"] == LONGEST_RUN
