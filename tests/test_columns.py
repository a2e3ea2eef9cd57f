"""Groups of columns, and batches of them that fit one message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmux.columns import (
    DIRECTORY,
    FINISH_COST,
    INDEX_BYTES,
    KIND_BITS,
    REGULAR,
    SYMLINK,
    Act,
    Group,
    Packer,
    itself,
    sparse,
    weight,
)
from fsmux.errors import AccessError, ErrorCode, FileError
from fsmux.limits import MAX_CONTROL_PAYLOAD, MAX_XATTRS, XATTR_COST
from fsmux.wire.frames import Cmd
from fsmux.wire.messages import Failed, Fault, Listed, Pack, Packed, decode, encode

kinds = st.sampled_from([REGULAR, DIRECTORY, SYMLINK])
FULL = MAX_XATTRS - XATTR_COST - len(b"user.a")
xattrs = st.sampled_from(
    [
        (),
        None,
        ((b"user.a", b""),),
        ((b"user.a", b"v" * FULL),),
        tuple((b"user.%03d" % number, b"") for number in range(MAX_XATTRS // (XATTR_COST + 8))),
    ]
)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    directory = tuple(draw(st.lists(st.sampled_from([b"a", b"b" * 255]), max_size=3)))
    if draw(st.integers(0, 9)) == 0:
        return itself(directory, 5, DIRECTORY | 0o755, draw(st.sampled_from(Act)), xattrs=draw(xattrs))
    if draw(st.integers(0, 9)) == 0:
        count = draw(st.integers(1, 30))
        targets = [b"t" * draw(st.sampled_from([1, 4095])) for _ in range(count)]
        same = [list(range(count)), [REGULAR | 0o600] * count]
        return Group(directory, [b"%d" % number for number in range(count)], [0] * count, *same, targets, Act.LINK)
    found = draw(st.lists(kinds, max_size=30))
    width = draw(st.sampled_from([8, 255]))
    return Group(
        directory,
        [b"%0*d" % (width, number) for number in range(len(found))],
        [draw(st.integers(0, 50)) if kind == REGULAR else 0 for kind in found],
        list(range(len(found))),
        [kind | 0o644 for kind in found],
        [b"t" * draw(st.sampled_from([1, 4095])) for kind in found if kind == SYMLINK],
        draw(st.sampled_from([Act.MAKE, Act.LIST])) if found and set(found) == {REGULAR} else Act.MAKE,
        owners=[2**64 - 1 - number for number in range(len(found))] if draw(st.booleans()) else [],
        shared={
            number: b"%016d" % number for number, kind in enumerate(found) if kind == REGULAR and draw(st.booleans())
        },
        xattrs=sparse(draw(xattrs) for _ in found) if draw(st.booleans()) else {},
    )


def rows(group: Group) -> list[tuple[object, ...]]:
    if group.itself:
        return [(group.directory, None, group.mtimes[0], group.modes[0], group.act, group.xattrs)]
    texts = group.link_targets()
    columns = zip(group.names, group.sizes, group.mtimes, group.modes, strict=True)
    shared, owners = group.shared, group.owners or [None] * len(group)
    return [
        (
            group.directory,
            *row,
            texts.get(index),
            group.act,
            shared.get(index),
            owners[index],
            group.xattrs.get(index, ()),
        )
        for index, row in enumerate(columns)
    ]


@given(groups(), st.lists(st.integers(0, 30), max_size=8))
def test_picking_and_cutting_keep_what_belongs_together(group: Group, indexes: list[int]) -> None:
    every = rows(group)
    if group.itself:
        return
    indexes = sorted({index for index in indexes if index < len(group)})
    assert rows(group.pick(indexes, group.act)) == [every[index] for index in indexes]
    for at in indexes:
        assert rows(group.cut(0, at)) + rows(group.cut(at, len(group))) == every
        assert group.cut(0, at).more


@given(st.lists(groups(), max_size=12), st.integers(1, 400), st.integers(1, 60))
def test_nothing_is_lost_or_moved_and_every_batch_fits(found: list[Group], most_bytes: int, most: int) -> None:
    packer = Packer(most_bytes, most)
    made = [batch for group in found for batch in packer.put(group)]
    assert packer.empty or made is not None
    made.append(packer.flush())
    assert packer.empty
    assert [row for batch in made for group in batch for row in rows(group)] == [
        row for group in found for row in rows(group)
    ]
    for batch in made:
        entries = sum(max(len(group), 1) for group in batch)
        assert entries <= most or len(batch) == 1
        assert entries <= 1 or sum(sum(group.sizes) for group in batch if group.act is not Act.LIST) <= most_bytes
        assert entries <= 1 or sum(map(weight, batch)) <= INDEX_BYTES
        for group in batch:
            group.crcs = [2**32 - 1] * len(group) if group.act is Act.MAKE else []
            group.holed = [index for index, mode in enumerate(group.modes[: len(group)]) if mode & KIND_BITS == REGULAR]
        assert len(encode(Pack(2**63, tuple(batch)))) <= min(sum(map(weight, batch)) + 32, MAX_CONTROL_PAYLOAD)


@pytest.mark.parametrize(
    ("counts", "size", "batches"),
    [
        ([100] * 9, 1, [[100] * 6, [100] * 3]),
        ([100] * 3, 40, [[100, 100], [100]]),  # ten thousand bytes are full, too
        ([400, 400], 1, [[400], [400]]),
        ([100, 600], 1, [[100, 550], [50]]),  # the first one would be nearly empty
        ([400, 700, 1], 1, [[400, 250], [450, 1]]),  # the second one does not fit a batch
    ],
)
def test_a_directory_stays_in_one_piece_behind_a_batch_that_is_half_full(
    counts: list[int], size: int, batches: list[list[int]]
) -> None:
    packer = Packer(10_000, 650)
    found = [
        Group((b"%d" % number,), [b"f"] * count, [size] * count, [0] * count, [REGULAR] * count)
        for number, count in enumerate(counts)
    ]
    made = [*(batch for group in found for batch in packer.put(group)), packer.flush()]
    assert [[len(group) for group in batch] for batch in made] == batches


def test_a_directory_is_finished_by_the_group_that_fills_it_while_that_is_here() -> None:
    packer = Packer(10_000, 650)
    filling = Group((b"d",), [b"f"], [1], [0], [REGULAR])
    finishing = itself((b"d",), 7, DIRECTORY | 0o750, Act.ADJUST)
    assert not packer.finish(finishing)  # nothing fills it
    assert not list(packer.put(Group((b"d",), [b"g"], [0], [0], [REGULAR], act=Act.ADJUST)))
    assert not packer.finish(finishing)
    assert not list(packer.put(filling))
    assert not list(packer.put(Group((b"d", b"below"), [b"f"], [1], [0], [REGULAR])))
    assert not packer.finish(itself((b"d",), 7, DIRECTORY, Act.ADJUST, owner=5))
    assert not packer.finish(itself((b"d",), 7, DIRECTORY, Act.ADJUST, xattrs=((b"user.a", b""),)))
    assert packer.finish(finishing)
    assert [group.finish for group in packer.flush()] == [None, (7, DIRECTORY | 0o750), None]
    assert not packer.finish(finishing)  # that is on its way


def test_what_finishes_directories_fits_into_the_message_too() -> None:
    packer = Packer(2**40, 10**6)
    batches = []
    for number in range(3000):
        group = Group((b"%d" % number,), [b"f"], [1], [0], [REGULAR])
        batches += packer.put(group)
        if not packer.finish(itself(group.directory, 2**62, DIRECTORY | 0o777, Act.ADJUST)):
            batches += packer.put(itself(group.directory, 2**62, DIRECTORY | 0o777, Act.ADJUST))
    assert len(batches) > 5
    for batch in batches:
        assert sum(map(weight, batch)) + FINISH_COST * sum(group.finish is not None for group in batch) <= INDEX_BYTES
        for group in batch:
            group.crcs = [2**32 - 1] * len(group) if group.act is Act.MAKE else []
        assert len(encode(Pack(2**63, tuple(batch)))) <= INDEX_BYTES


@given(st.integers(1, 40), st.integers(0, 2**62), st.text(max_size=500))
def test_all_that_can_be_wrong_with_a_full_message_fits_too(width: int, size: int, text: str) -> None:
    """Every file of it is lost, or has failed; directories cannot be read."""
    packer = Packer(2**63, 10**6)
    names = [b"%0*d" % (width, number) for number in range(2000)]
    group = Group((b"d",) * 20, names, [size] * 2000, [2**62] * 2000, [REGULAR | 0o777] * 2000)
    for batch in [*packer.put(group), packer.flush()]:
        failed = []
        for place, part in enumerate(batch):
            part.crcs = [2**32 - 1] * len(part)
            part.lost = [(index, FileError(text)) for index in range(len(part))]
            part.holed = list(range(len(part)))
            failed += [Failed(place, index, Fault(ErrorCode.DAMAGED, text), True) for index in range(len(part))]
        assert len(encode(Pack(2**63, tuple(batch)))) <= MAX_CONTROL_PAYLOAD
        assert len(encode(Packed(2**63, tuple(failed), True))) <= MAX_CONTROL_PAYLOAD
    for number in range(100):
        for batch in packer.put(Group((b"%d" % number,), error=FileError(text))):
            assert len(encode(Listed(tuple(batch)))) <= MAX_CONTROL_PAYLOAD


def test_many_failures_are_told_by_their_reasons() -> None:
    lost = [(index, AccessError(f"{'long name ' * 10}{index}: permission denied")) for index in range(180)]
    names = [b"%d" % index for index in range(180)]
    group = Group((), names, [1] * 180, [0] * 180, [REGULAR] * 180, crcs=[0] * 180, lost=lost)
    (found,) = decode(Cmd.PACK, encode(Pack(1, (group,)))).groups  # type: ignore[union-attr]
    assert {str(error) for _, error in found.lost} == {"permission denied"}
    group.lost = lost[:20]
    (found,) = decode(Cmd.PACK, encode(Pack(1, (group,)))).groups  # type: ignore[union-attr]
    assert [str(error) for _, error in found.lost] == [str(error) for _, error in lost[:20]]
