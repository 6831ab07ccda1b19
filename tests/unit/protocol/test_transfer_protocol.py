"""Parts of files, and what headers say about them."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.protocol.headers import (
    decode_content_md5,
    decode_content_range,
    decode_etag,
    decode_md5_etag,
    decode_retry_after,
    decode_strong_etag,
)
from aioftrackjobs.protocol.upload import (
    Part,
    PartSizes,
    PartTargets,
    decode_part_targets,
    encode_upload_completion,
    encode_upload_request,
)

MIB = 1024**2
GIB = 1024**3
MD5 = "d41d8cd98f00b204e9800998ecf8427e"
NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size", "count", "length"),
    [
        (0, 1, 0),
        (16 * MIB, 1, 16 * MIB),
        (16 * MIB + 1, 3, 8 * MIB),
        (128 * MIB, 16, 8 * MIB),
        (128 * MIB + 1, 9, 16 * MIB),
        (GIB, 64, 16 * MIB),
        (GIB + 1, 33, 32 * MIB),
        (8 * GIB + 1, 129, 64 * MIB),
        (64 * GIB + 1, 513, 128 * MIB),
        (1250 * GIB, 10_000, 128 * MIB),
    ],
)
def test_files_are_cut_as_the_official_javascript_client_cuts_them(
    size: int, count: int, length: int
) -> None:
    parts = PartSizes().cut(size)

    assert (len(parts), parts[0].stop - parts[0].start) == (count, length)


def test_a_file_of_too_many_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        PartSizes().cut(1250 * GIB + 1)


@given(st.integers(0, 1_000), st.integers(1, 500), st.integers(1, 5))
def test_parts_are_the_whole_file(size: int, length: int, fewest: int) -> None:
    parts = PartSizes((), largest=length, fewest=fewest, most=100_000).cut(size)

    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == size


def test_unknown_values_are_not_sent() -> None:
    request = encode_upload_request("c1", file_name="a.exr", file_size=5)

    assert request.keys() == {"action", "component_id", "file_name", "file_size"}


def test_parts_are_completed_in_order() -> None:
    assert encode_upload_completion("c1", "u1", {2: "b", 1: "a"})["parts"] == [
        {"part_number": 1, "e_tag": "a"},
        {"part_number": 2, "e_tag": "b"},
    ]


def test_urls_of_parts_are_ordered_and_not_shown() -> None:
    urls = [{"part_number": number, "signed_url": f"https://s/{number}"} for number in (2, 1)]

    targets = decode_part_targets({"upload_id": "u1", "urls": urls}, 2)

    assert targets == PartTargets("u1", [Secret("https://s/1"), Secret("https://s/2")])
    assert "https" not in repr(targets)
    with pytest.raises(KeyError):
        decode_part_targets({"upload_id": "u1", "urls": urls}, 3)


def test_a_part_ends_before_the_next_begins() -> None:
    assert PartSizes((), largest=4, fewest=2).cut(6) == [Part(1, 0, 4), Part(2, 4, 6)]


@pytest.mark.parametrize(
    ("headers", "tag", "strong", "md5"),
    [
        ({}, None, None, None),
        ({"etag": '""'}, None, None, None),
        ({"etag": f'"{MD5}"'}, MD5, f'"{MD5}"', MD5),
        ({"etag": MD5.upper()}, MD5.upper(), None, MD5),
        ({"etag": f'W/"{MD5}"'}, MD5, None, None),
        ({"etag": f'"{MD5}-3"'}, f"{MD5}-3", f'"{MD5}-3"', None),
        (
            {"etag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms"},
            MD5,
            f'"{MD5}"',
            None,
        ),
        (
            {"etag": f'"{MD5}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"},
            MD5,
            f'"{MD5}"',
            None,
        ),
    ],
)
def test_entity_tags(
    headers: dict[str, str], tag: str | None, strong: str | None, md5: str | None
) -> None:
    assert decode_etag(headers) == tag
    assert decode_strong_etag(headers) == strong
    assert decode_md5_etag(headers) == md5


@pytest.mark.parametrize(
    ("headers", "digest"),
    [
        ({}, None),
        ({"content-md5": "no base64!"}, None),
        ({"content-md5": b64encode(b"short").decode()}, None),
        ({"content-md5": b64encode(b"x" * 16).decode()}, b"x" * 16),
        ({"x-goog-hash": f"crc32c=n03x6A==, md5={b64encode(b'y' * 16).decode()}"}, b"y" * 16),
    ],
)
def test_digests_of_bodies(headers: dict[str, str], digest: bytes | None) -> None:
    assert decode_content_md5(headers) == digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 5-9/10", (5, 10)),
        ("bytes 5-9/*", (5, None)),
        ("bytes */10", None),
        ("lines 5-9/10", None),
        ("", None),
    ],
)
def test_content_ranges(text: str, expected: object) -> None:
    assert decode_content_range({"content-range": text}) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("soon", None),
        ("7", 7.0),
        ("Sun, 01 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Nov 2026 12:00:30", 30.0),
    ],
)
def test_when_to_come_back(text: str, seconds: float | None) -> None:
    assert decode_retry_after({"retry-after": text}, NOW) == seconds


def test_a_date_to_come_back_at_is_one_of_the_servers_clock() -> None:
    headers = {
        "date": "Sun, 01 Nov 2026 13:00:00 GMT",
        "retry-after": "Sun, 01 Nov 2026 13:00:05 GMT",
    }
    assert decode_retry_after(headers, NOW) == 5.0
