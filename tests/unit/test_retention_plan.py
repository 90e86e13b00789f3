"""What goes by a policy and what stays, by rules alone: no store, no files."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gently_bluesky.errors import InvalidSetting, StorageError
from gently_bluesky.index.lineage import Child
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.upkeep.holdings import Holding, Holdings
from gently_bluesky.upkeep.planned import Plan
from gently_bluesky.upkeep.retention import Keep, Policy, Rule
from gently_bluesky.upkeep.retention_plan import Place, plan_of

DAY_S = 86_400.0
NOW = 1_790_000_000.0
PROTECTIONS = ("pinned", "running", "incomplete", "damaged", "unverified", "elsewhere", "children")


def held(
    uid: str, age_days: float = 0, nbytes: int = 10, *protected: str, derived: bool = False, **start: object
) -> Holding:
    start = {"session": "s", **start, **({"lineage": {}} if derived else {"scan_id": 1})}
    record = Record(
        uid=uid,
        kind="run",
        run_uid=uid,
        time=NOW - age_days * DAY_S,
        status="complete",
        session=str(start["session"]),
        data_type=start.get("data_type"),
        metadata=start,
    )
    made = (Child("child", "projection"),) if "children" in protected else ()
    return Holding(record, (f"{uid}/asset",), nbytes, 100, dict.fromkeys(protected, "why"), made)


def planned(policy: Policy | Rule, *runs: Holding, **more: object) -> Plan:
    policy = Policy(rules=[policy]) if isinstance(policy, Rule) else policy
    runs = tuple(sorted(runs, key=lambda one: (one.run.time, one.uid)))
    return plan_of(policy, Place("store", NOW, 0.0, Holdings(runs), **more))


def gone(policy: Policy | Rule, *runs: Holding, **more: object) -> list[str]:
    return sorted(one.uid for one in planned(policy, *runs, **more).goes)


# -- the limits ----------------------------------------------------------------------------------------------


def test_what_is_older_goes_and_what_is_as_old_stays():
    runs = held("old", 30.001), held("as-old", 30), held("new", 1), held("of-tomorrow", -1)
    assert gone(Rule(max_age="30 days"), *runs) == ["old"]


def test_a_rule_speaks_of_its_session_data_type_and_kind_alone():
    runs = (
        held("a", 9, session="x"),
        held("b", 9, session="y"),
        held("c", 9, session="x", data_type="sweep"),
        held("d", 9, session="x", data_type="sweep", derived=True),
    )
    assert gone(Rule(max_age="1 day", session="x"), *runs) == ["a", "c", "d"]
    assert gone(Rule(max_age="1 day", session=("x", "y"), derived=False), *runs) == ["a", "b", "c"]
    assert gone(Rule(max_age="1 day", data_type="sweep"), *runs) == ["c", "d"]
    assert gone(Rule(max_age="1 day", derived=True), *runs) == ["d"]


def test_the_oldest_go_until_the_rest_is_within_its_size():
    runs = [held(f"r{n}", 9 - n, 10) for n in range(5)]
    assert gone(Rule(max_size=30), *runs) == ["r0", "r1"]
    assert gone(Rule(max_size=50), *runs) == []


def test_a_size_is_of_each_group_where_that_is_said():
    runs = [held(f"{s}{n}", 9 - n, 10, session=s) for s in "ab" for n in range(3)]
    assert gone(Rule(max_size=20, per="session"), *runs) == ["a0", "b0"]
    assert gone(Rule(max_size=20, session="a"), *runs) == ["a0"]


def test_a_size_passes_over_what_is_protected_and_says_what_it_lacks():
    runs = held("a", 9, 10, "pinned"), held("b", 8, 10), held("c", 7, 10, "unverified")
    plan = planned(Rule(max_size=5), *runs)
    assert [one.uid for one in plan.goes] == ["b"]
    assert plan.remarks == ("max_size 5 B wants 15 B more to go, and all that is left has to stay",)


def test_the_last_so_many_of_each_session_stay_and_a_rule_of_nothing_else_lets_all_others_go():
    runs = [held(f"{s}{n}", 9 - n, session=s) for s in "ab" for n in range(3)]
    assert gone(Rule(keep_last=2), *runs) == ["a0", "b0"]


def test_the_last_so_many_are_counted_by_any_key_of_start_documents():
    runs = [held(f"{e}{n}", 9 - n, sample={"embryo": e}) for e in "ef" for n in range(3)]
    assert gone(Rule(keep_last=2, per=["session", "sample.embryo"]), *runs) == ["e0", "f0"]
    assert gone(Rule(keep_last=2), *runs) == ["e0", "e1", "f0", "f1"]


def test_results_do_not_count_among_the_last_runs():
    runs = [
        held("a", 9),
        held("b", 8),
        *(held(f"p{n}", 7 - n, derived=True, data_type="p") for n in range(3)),
    ]
    assert gone(Rule(keep_last=1), *runs) == ["a", "p0", "p1"]


def test_the_last_stay_whatever_else_is_exceeded():
    runs = [held(f"r{n}", 90 - n, 10) for n in range(4)]
    assert gone(Rule(keep_last=1, max_age="1 day", max_size=1), *runs) == ["r0", "r1", "r2"]
    assert gone(Rule(keep_last=1, max_age="1000 days"), *runs) == []


def test_thinning_leaves_every_nth_time_point_and_all_results():
    runs = [held(f"t{n}", 9 - n, 10, "children") for n in range(7)]
    runs += [held(f"p{n}", 9 - n, derived=True, data_type="projection") for n in range(7)]
    plan = planned(Rule(thin=3, derived_suffice=True), *runs)
    assert sorted(one.uid for one in plan.goes) == ["t1", "t2", "t4", "t5"]
    assert {one.although for one in plan.goes} == {("children",)}


def test_what_thinning_left_is_not_thinned_again():
    runs = [held(f"t{n}", 9 - n, 10, "children") for n in range(9)]
    rule = Rule(thin=3, derived_suffice=True)
    went = {one.uid for one in planned(rule, *runs).goes}
    left = [one for one in runs if one.uid not in went]
    place = Place("store", NOW, 0.0, Holdings(left, gone=[one for one in runs if one.uid in went]))
    assert [one.uid for one in left] == ["t0", "t3", "t6"]
    assert plan_of(Policy(rules=[rule]), place).goes == ()


def test_time_points_are_counted_in_each_session_and_group():
    runs = [
        held(f"{s}{e}{n}", 9 - n, 10, "children", session=s, embryo=e)
        for s in "ab"
        for e in "ef"
        for n in range(2)
    ]
    rule = Rule(thin=2, per="embryo", derived_suffice=True)
    assert gone(rule, *runs) == ["ae1", "af1", "be1", "bf1"]


def test_a_time_point_goes_only_if_a_result_of_it_is_there_and_stays():
    bare, kept = held("t1", 8), held("t2", 7, 10, "children")
    runs = [held("t0", 9), bare, kept, held("child", 7, derived=True, data_type="projection")]
    thin = Rule(thin=5, derived=False, derived_suffice=True)
    plan = planned(thin, *runs)
    assert [one.uid for one in plan.goes] == ["t2"]
    assert "no result" in next(one for one in plan.stays if one.uid == "t1").why["rule"]
    projections = Rule(max_age="1 day", derived=True)  # what would stay of the time point goes too
    plan = planned(Policy(rules=[thin, projections]), *runs)
    assert [one.uid for one in plan.goes] == ["child"]
    assert "none that stays" in next(one for one in plan.stays if one.uid == "t2").why["rule"]
    assert plan.nbytes + sum(one.nbytes for one in plan.stays) == 40


def test_a_result_that_failed_or_is_in_memory_does_not_stand_for_its_time_point():
    good, bad = Child("a", "x"), Child("b", "x", "failed", suffices=False)
    runs = [held(f"t{n}", 9 - n) for n in range(3)]
    for children, expected in (([bad], []), ([bad, good], ["t1"])):
        runs[1] = replace(held("t1", 8, 10, "children"), children=tuple(children))
        assert gone(Rule(thin=5, derived_suffice=True), *runs) == expected


def test_what_is_given_back_counts_where_sizes_are_limited_again():
    runs = [held("t0", 9), held("t1", 8, 10, "children"), held("t2", 7), held("p", 6, 10, derived=True)]
    runs[1] = replace(runs[1], children=(Child("p", "x"),))
    rules = [Rule(thin=5, derived=False, derived_suffice=True), Rule(max_size=5, derived=True)]
    plan = planned(Policy(rules=rules), *runs)
    assert sorted(plan.uids) == ["p"]
    assert plan.remarks == ()
    plan = planned(Policy(rules=[*rules, Rule(min_free=100, derived=True)]), *runs, free_bytes=85)
    assert sorted(plan.uids) == ["p"]
    assert "min_free 100" in plan.remarks[0]


def test_time_points_that_stay_for_want_of_a_result_count_where_sizes_are_limited():
    runs = [held("t0", 9), held("t1", 8), held("t2", 7), held("t3", 6, 10, "children")]
    assert gone(Rule(thin=5, max_size=20, derived_suffice=True), *runs) == ["t0", "t3"]


def test_a_time_point_that_is_too_old_as_well_goes_with_its_results():
    runs = [held("t0", 9), held("t1", 8, 10, "children"), held("child", 8, derived=True)]
    old = Rule(max_age="1 day", thin=5, derived_suffice=True)
    assert gone(old, *runs) == ["child", "t0", "t1"]


def test_room_is_made_until_so_much_is_free_what_lies_in_the_trash_counted():
    runs = [held(f"r{n}", 9 - n, 10) for n in range(5)]
    stone = Tombstone("t", "t", NOW, "why", NOW + 1, 15, 1, "", "p", "trash/p")
    assert gone(Rule(min_free=100), *runs, free_bytes=70) == ["r0", "r1", "r2"]
    assert gone(Rule(min_free=100), *runs, free_bytes=70, trash=[stone], purgeable=[stone]) == ["r0", "r1"]
    assert gone(Rule(min_free=100), *runs, free_bytes=70, trash=[stone]) == ["r0", "r1", "r2"]
    assert gone(Rule(min_free=100), *runs, free_bytes=100) == []


def test_what_goes_by_another_limit_counts_as_free_and_as_gone():
    runs = [held(f"r{n}", 90 - n, 10) for n in range(5)]
    policy = Policy(rules=[Rule(max_age="88.5 days", max_size=30, min_free=100)])
    assert gone(policy, *runs, free_bytes=80) == ["r0", "r1"]


# -- several rules, and what is protected --------------------------------------------------------------------


def test_the_longer_age_wins():
    runs = held("a", 60, session="x"), held("b", 60), held("c", 100, session="x")
    rules = [Rule(max_age="30 days"), Rule(max_age="90 days", session="x")]
    assert gone(Policy(rules=rules), *runs) == ["b", "c"]
    plan = planned(Policy(rules=rules), *runs)
    assert plan.stays[0].why == {"rule": "a rule keeps it: session x; max_age 90 days"}
    assert plan.stays[0].asked == ("older than 30 days",)


def test_policies_together_keep_what_either_keeps():
    ours = Policy(rules=[Rule(max_age="1 day")], keep_days=1, name="ours")
    theirs = Policy(rules=[Rule(keep_last=2)], keep=[Keep(session="y")], keep_days=9, name="theirs")
    both = ours.together_with(theirs)
    assert (both.keep_days, both.name) == (9, "ours and theirs")
    runs = [held(f"r{n}", 9 - n) for n in range(4)]
    assert gone(both, *runs) == ["r0", "r1"]


def test_a_limit_of_size_does_not_keep_what_an_age_lets_go():
    runs = held("a", 9, data_type="sweep"), held("b", 9)
    policy = Policy(rules=[Rule(max_size="1 TB"), Rule(max_age="7 days", data_type="sweep")])
    assert gone(policy, *runs) == ["a"]


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_what_is_protected_stays_and_the_plan_says_why(protection):
    plan = planned(Rule(max_age="1 day", max_size=1, min_free=1000), held("a", 9, 10, protection))
    assert plan.goes == ()
    assert plan.stays[0].why == {protection: "why"}
    assert protection in str(plan)


def test_parents_go_only_by_a_rule_that_says_that_results_suffice():
    parent = held("a", 9, 10, "children")
    suffices, other = Rule(max_age="1 day", derived_suffice=True), Rule(min_free=1000)
    assert gone(suffices, parent) == ["a"]
    assert gone(other, parent) == []
    assert gone(Policy(rules=[suffices, other]), parent) == ["a"]
    assert gone(Policy(rules=[suffices]), held("b", 9, 10, "children", "pinned")) == []


def test_what_is_kept_stays():
    assert gone(Rule(max_age="1 day"), held("a", 9), held("b", 9), kept={"a": "by a keep"}) == ["b"]


def test_a_plan_says_what_it_was_made_from():
    old, more = held("a", 9), held("b", 1)
    rule = Rule(max_age="1 day")
    first = planned(rule, old)
    assert first.fingerprint == planned(rule, old, free_bytes=7).fingerprint
    others = [
        planned(rule, old, more),
        planned(rule, held("a", 9, 10, "pinned")),
        planned(rule, old, kept={"a": "x"}),
        planned(Rule(max_age="2 days"), old),
        planned(rule, old, trash=[Tombstone("t", "t", NOW, "why", NOW, 15, 1, "", "p", "trash/p")]),
    ]
    assert first.fingerprint not in {one.fingerprint for one in others}


def test_a_plan_remarks_on_what_leaves_nothing_and_on_what_is_for_nothing():
    volume, mip, lone = (
        held("v", 9, 10, "children"),
        held("child", 9, derived=True),
        held("lone", 8, derived=True),
    )
    policy = Policy(
        rules=[Rule(max_size=1), Rule(data_type="volum", thin=1000, derived_suffice=True)],
        keep=[Keep(session="nigth")],
    )
    said = "\n".join(planned(policy, volume, mip, lone).remarks)
    assert "1 result would go of which nothing else stays that they were made from: lone" in said
    assert "keep (session nigth) holds no run" in said
    assert "rule (data_type volum; thin 1000; derived_suffice true) speaks of no run" in said
    assert "max_size 1 B wants 9 B more to go" in said


def test_the_table_fits_a_terminal_whatever_it_tells():
    runs = [
        held(f"{n:08d}-e", 9 - n / 10, 10 ** (n % 15), plan_name="acquire_a_very_long_name")
        for n in range(60)
    ]
    plan = planned(
        Rule(max_age="1 day", max_size=1), *runs, held("x\x1b[2J", 9, 10, "pinned", session="n" * 99)
    )
    text = str(plan)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "... and 20 runs more" in text
    assert plan.to_dict()["nbytes"] == plan.nbytes == sum(one.nbytes for one in plan.goes)


RULES = st.builds(
    Rule,
    session=st.none() | st.sampled_from(["x", "y"]),
    max_age=st.none() | st.integers(1, 20).map(lambda days: timedelta(days=days)),
    max_size=st.none() | st.integers(1, 200),
    min_free=st.none() | st.integers(1, 200),
    keep_last=st.integers(1, 3),
    derived_suffice=st.booleans(),
)
RUNS = st.lists(
    st.tuples(
        st.integers(0, 25),
        st.integers(0, 50),
        st.sampled_from("xy"),
        st.booleans(),
        st.sets(st.sampled_from(PROTECTIONS), max_size=1) | st.just(set()),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(rules=st.lists(RULES, min_size=1, max_size=3), made=RUNS)
def test_nothing_protected_goes_the_most_protective_wins_and_bytes_add_up(rules, made):
    runs = [
        held(f"r{n:02d}", age, nbytes, *protected, session=session, derived=derived)
        for n, (age, nbytes, session, derived, protected) in enumerate(made)
    ]
    plan = planned(Policy(rules=rules), *runs)
    by_uid = {one.uid: one for one in runs}
    assert sorted([*plan.uids, *(one.uid for one in plan.stays)]) == sorted(by_uid)
    assert plan.nbytes + sum(one.nbytes for one in plan.stays) == sum(one.nbytes for one in runs)
    for one in plan.goes:
        assert set(by_uid[one.uid].protected) <= ({"children"} if one.although else set())
        assert one.why
    for one in plan.stays:
        assert one.why
    for rule in rules:  # what a rule alone promises to keep stays beside others
        has_size = rule.max_size is not None or rule.min_free is not None
        alone = set() if has_size else {one.uid for one in planned(rule, *runs).stays if "rule" in one.why}
        assert not alone & plan.uids
        spoken_of = [one for one in runs if rule.session is None or one.run.session in rule.session]
        newest = max(spoken_of, key=lambda one: (one.run.time, one.uid), default=None)
        assert newest is None or newest.uid not in plan.uids  # each rule keeps its last one


# -- what cannot be a policy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: Rule(), "at least one of max_age"),
        (lambda: Rule(session="x", per="embryo"), "at least one of"),
        (lambda: Rule(max_age="0 days"), "above 0"),
        (lambda: Rule(max_age="soon"), "'30 days'"),
        (lambda: Rule(max_age=30), "'30 days'"),
        (lambda: Rule(max_age="99999999 years"), "1,000 years"),
        (lambda: Rule(max_size=-1), "above 0"),
        (lambda: Rule(max_size="5 gigs"), "'500 GB'"),
        (lambda: Rule(max_size=True), "'500 GB'"),
        (lambda: Rule(min_free=0), "above 0"),
        (lambda: Rule(keep_last=0), "1 or more"),
        (lambda: Rule(keep_last=2.5), "whole number"),
        (lambda: Rule(thin=1, derived_suffice=True), "2 or more"),
        (lambda: Keep(query={1: 2}), "conditions of a query"),
        (lambda: Rule(thin=5), "derived_suffice is not set"),
        (lambda: Rule(thin=5, derived=True, derived_suffice=True), "derived results"),
        (lambda: Rule(max_age="1 day", per="embryo"), "leave per away"),
        (lambda: Rule(max_age="1 day", session=()), "to be a text"),
        (lambda: Rule(max_age="1 day", derived="no"), "true or false"),
        (lambda: Keep(), "got none of them"),
        (lambda: Keep(query={"kind": "asset"}), "query of runs"),
        (lambda: Policy(rules=[]), "at least one rule"),
        (lambda: Policy(rules=[Rule(keep_last=1)], keep_days=float("nan")), "number of days"),
        (lambda: Policy(rules=[Rule(keep_last=1)], name=" "), "in words"),
        (lambda: Policy(rules=[Rule(keep_last=1, session="x")], keep=[Keep(session="x")]), "leave one away"),
    ],
)
def test_a_contradictory_or_absurd_policy_is_refused(made, match):
    with pytest.raises(InvalidSetting, match=match) as caught:
        made()
    assert "nothing was deleted" in str(caught.value)


WRITTEN = """
name = "nights"
keep_days = 3

[[rule]]
session = ["a", "b"]
max_age = "30 days"
max_size = "1.5 TB"
keep_last = 5
per = ["session", "embryo"]

[[rule]]
derived = false
thin = 10
derived_suffice = true

[[keep]]
query = { embryo = "e3", "sample.age_h" = 3 }
children = "segmentation"
"""


def test_a_policy_in_a_file_is_the_one_that_is_written(tmp_path: Path):
    (tmp_path / "retention.toml").write_text(WRITTEN)
    read = Policy.from_toml(tmp_path / "retention.toml")
    assert read == Policy(
        name="nights",
        keep_days=3,
        rules=[
            Rule(
                session=("a", "b"),
                max_age=timedelta(days=30),
                max_size=1_500_000_000_000,
                keep_last=5,
                per=("session", "embryo"),
            ),
            Rule(derived=False, thin=10, derived_suffice=True),
        ],
        keep=[Keep(query={"embryo": "e3", "sample.age_h": 3}, children="segmentation")],
    )
    assert read.to_dict()["rule"][0]["max_age"] == "30 days"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("keep_dayz = 3", "got keep_dayz"),
        ("[[rule]]\nmax_agee = '3 days'", "expected a rule to have some of the keys .* got max_agee"),
        ("[[keep]]\nsessions = 'x'", "expected a keep to have some of the keys .* got sessions"),
        ("[rule]\nmax_age = '3 days'", r"expected tables \[\[rule\]\]"),
        ("rule = 3", r"expected tables \[\[rule\]\]"),
        ("", "at least one rule"),
        ("[[rule]\n", "is not TOML"),
        ("[[rule]]\nmax_age = 2026-01-01", "'30 days'"),
        ("keep_days = 'x'\n[[rule]]\nkeep_last = 1", "number of days"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_by_name(tmp_path: Path, text: str, match: str):
    path = tmp_path / "retention.toml"
    path.write_text(text)
    with pytest.raises(InvalidSetting, match=match) as caught:
        Policy.from_toml(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_told_as_storage(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot be read; nothing was deleted"):
        Policy.from_toml(tmp_path)
