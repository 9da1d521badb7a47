"""Every domain error has a status, and is documented in one form."""

from gradprobe import errors
from gradprobe.errors import GradprobeError
from service.problems import POINTERS, STATUSES


def declared() -> set[type[GradprobeError]]:
    return {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GradprobeError)}


def test_every_domain_error_has_a_row_and_no_row_is_left_over() -> None:
    assert set(STATUSES) == declared()
    assert set(POINTERS) < declared()


def test_statuses_are_of_errors() -> None:
    assert {status // 100 for status in STATUSES.values()} == {4, 5}


def test_codes_are_stable_and_unique() -> None:
    codes = [kind.code for kind in declared()]

    assert len(set(codes)) == len(codes)
    assert all(code.isupper() for code in codes)


def test_a_fault_of_the_request_has_a_pointer_where_a_parameter_caused_it() -> None:
    assert {kind for kind, status in STATUSES.items() if status == 422} == set(POINTERS)
