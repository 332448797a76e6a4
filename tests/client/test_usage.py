# SPDX-License-Identifier: Apache-2.0
"""Seconds and prices: what is known, what is final, and what is not said."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.models.jobs import Job
from airflow_provider_ibm_sessions.client.models.sessions import Session
from airflow_provider_ibm_sessions.client.usage import UsageReport, format_money
from airflow_provider_ibm_sessions.client.validation import validate_currency, validate_price


def job(seconds=None, settled="complete", status="Completed"):
    usage = None if seconds is None else {"qpu_charge_time_seconds": seconds, "status": settled}
    return Job.model_validate({"id": "j", "status": status, "usage": usage})


def session(**facts):
    return Session.model_validate({"id": "s", "mode": "dedicated", "state": "closed", **facts})


class TestJobs:
    def test_their_seconds_add_up_exactly(self):
        usage = UsageReport.of_jobs([job(0.1), job(0.2)])
        assert usage.billed_seconds == usage.qpu_seconds == Decimal("0.3")
        assert usage.settled

    @pytest.mark.parametrize("other", [job(2, "pending"), job(2, status="Running"), job(2, None)])
    def test_one_that_is_provisional_lets_none_be_final(self, other):
        usage = UsageReport.of_jobs([job(1), other])
        assert usage.billed_seconds == 3
        assert not usage.billed_is_final

    def test_one_without_usage_makes_the_sum_unknown_and_not_smaller(self):
        usage = UsageReport.of_jobs([job(1), job(None)])
        assert usage.to_json(Decimal(1), "USD") == {
            "qpu_seconds": None,
            "billed_seconds": None,
            "cost": None,
            "currency": "USD",
            "settled": False,
        }


class TestSessions:
    def test_a_dedicated_one_is_billed_by_its_elapsed_time(self):
        usage = UsageReport.of_session(session(elapsed_time=61.5), [job(2)])
        assert usage.to_json(Decimal("1.6"), "USD") == {
            "qpu_seconds": 2.0,
            "billed_seconds": 61.5,
            "cost": 98.4,
            "currency": "USD",
            "settled": True,
        }

    def test_a_batch_is_billed_by_its_jobs(self):
        usage = UsageReport.of_session(session(mode="batch", elapsed_time=600), [job(2), job(0.5)])
        assert usage.billed_seconds == Decimal("2.5")
        assert usage.settled

    def test_a_bill_can_be_final_before_the_qpu_seconds_are(self):
        usage = UsageReport.of_session(session(elapsed_time=10), [job(2, "pending")])
        assert usage.billed_is_final
        assert not usage.settled

    @pytest.mark.parametrize(
        ("facts", "jobs"),
        [
            ({"state": "inactive", "elapsed_time": 10}, [job(1)]),
            ({"elapsed_time": 10}, [job(1, status="Running")]),
            ({"elapsed_time": 10}, None),
            ({}, [job(1)]),
        ],
    )
    def test_one_that_may_go_on_is_not_final(self, facts, jobs):
        assert not UsageReport.of_session(session(**facts), jobs).billed_is_final

    def test_one_that_never_ran_a_job_costs_nothing_though_ibm_does_not_say_so(self):
        usage = UsageReport.of_session(session(state_reason="unused"), [])
        assert (usage.billed_seconds, usage.settled) == (0, True)

    def test_what_is_not_said_is_unknown(self):
        usage = UsageReport.of_session(session(started_at="2026-11-01T00:00:00Z"), [])
        assert usage.billed_seconds is None
        assert usage.describe(Decimal(1), "USD") == "IBM does not say yet what is billed"


def test_without_a_price_there_is_no_cost():
    assert UsageReport.of_jobs([job(1)]).to_json(None, "USD")["cost"] is None


def test_a_free_second_costs_nothing():
    assert UsageReport.of_jobs([job(1)]).to_json(Decimal(0), "USD")["cost"] == 0


def test_money_is_rounded_to_the_cent_for_people_only():
    usage = UsageReport.of_jobs([job(1077.803125)])
    assert usage.to_json(Decimal("1.6"), "USD")["cost"] == 1724.485
    assert usage.describe(Decimal("1.6"), "EUR") == "1077.8 s billed, 1,724.49 EUR"
    assert UsageReport.of_jobs([job(7.35931)]).describe(None, "EUR") == "7.36 s billed"
    assert format_money(Decimal("0.005"), "USD") == "0.01 USD"


@pytest.mark.parametrize(("price", "read"), [(1.6, "1.6"), ("1.60", "1.60"), (0, "0"), (Decimal(2), "2")])
def test_a_price_is_a_number_or_its_text(price, read):
    assert validate_price(price) == Decimal(read)


@pytest.mark.parametrize("price", [-1, "free", "", None, True, float("nan"), float("inf"), "1e9", [1]])
def test_a_price_that_is_no_number_is_named(price):
    with pytest.raises(ConfigurationError, match="price_per_second must be a number from 0 to 1000000"):
        validate_price(price)


@pytest.mark.parametrize("currency", ["usd", "US", "DOLLAR", "", 1, None])
def test_a_currency_is_a_code(currency):
    with pytest.raises(ConfigurationError, match="currency must be three capital letters such as USD"):
        validate_currency(currency)
