"""How `triton_fused` divides its work, where the numbers are too large to be run."""

import itertools

import pytest
import torch

pytest.importorskip("triton")

from kernels.triton_fused import plan

BITS_31 = 2**31
MACHINES = [plan.Machine(132, 32), plan.Machine(304, 64), plan.INTERPRETED]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FORMS = [(planes, pool) for planes in (True, False) for pool in (True, False)]
# The dimension that is None is chosen for a number of elements around 2**31.
SHAPES = [
    (None, 64, 32, 32),
    (None, 1, 1, 1),
    (None, 3, 17, 13),
    (None, 1000, 7, 7),
    (16, None, 16, 16),
    (2, None, 1, 1),
    (16, None, 5, 3),
    (1, 1, None, 4096),
    (1, 1, 4096, None),
    (2, 7, 3001, None),
    (64, 4096, 1, None),
]


def around(shape, elements):
    """The shape with the fewest elements that are as many, and the next smaller and larger one."""
    free = shape.index(None)
    rest = torch.Size(size for size in shape if size is not None).numel()
    size = -(-elements // rest)
    return [(*shape[:free], size + change, *shape[free + 1 :]) for change in (-1, 0, 1)]


def counted(work, case, parts=None):
    """The largest number that a lane of a kernel over this pass comes to, as `triton_fused/device` writes its sums."""
    end = -(-work.images * case.units // case.BM) * case.BM
    channel = work.groups * case.BC - 1
    # The last lane of all, its neighbors, and the last of the image before.
    units = {end - 1, end - 2, end - 1 - case.UW, end // case.units * case.units - 1, 0}
    found = [work.images * case.S, work.images * case.units + case.BM - 1, end]
    for unit in (unit for unit in units if unit >= 0):
        if not case.pool:
            image, pixel = divmod(unit, case.S)
            in_planes = image * case.C * case.S + pixel + channel * case.S
            found.append(in_planes if case.planes else unit * case.C + channel)
            continue
        line, column = divmod(unit, case.UW)
        image, row = divmod(line, case.UH)
        for lower, right in itertools.product((0, 1), (0, 1)):
            y, x = 2 * row + lower, 2 * column + right
            in_planes = (image * case.C + channel) * case.S + y * case.W + x
            found.append(in_planes if case.planes else ((image * case.H + y) * case.W + x) * case.C + channel)
        found.append(2 * unit + 1)
        area = case.OH * case.OW
        in_planes = image * case.C * area + row * case.OW + column + channel * area
        found.append(in_planes if case.planes else ((image * case.OH + row) * case.OW + column) * case.C + channel)
    if parts:
        split = case.splits_power - 1
        found += [split * 3 * case.C + channel, split * parts.tiles * parts.case.BM, work.programs * work.tiles]
    return max(found)


def passes(shape, planes, pool, dtype, machine):
    """Each pass of training and evaluation, the case of its kernel, and the pass whose parts it adds up."""
    if resident := plan.is_resident(shape, planes, pool, dtype, machine):
        whole = plan.divide(shape, planes, pool, "sigmoid", True, False, dtype, machine, resident)
        assert not whole.case.wide
        return [(whole, whole.case, None)]
    parts = plan.divide(shape, planes, False, None, True, False, dtype, machine, resident)
    main, still = (
        plan.divide(shape, planes, pool, "sigmoid", t, False, dtype, machine, resident) for t in (True, False)
    )
    merging = [(main, parts), (main, main), (still, still)]
    return [(parts, parts.case, parts), *((work, work.merging(of), of) for work, of in merging)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("planes", "pool"), FORMS)
def test_every_lane_can_count_to_its_offsets(planes, pool, dtype):
    seen = set()
    for shape, machine in itertools.product(SHAPES, MACHINES):
        if pool and 1 in shape[2:]:
            continue
        # The lanes outside of the batch count up to twice as far as those inside.
        for size in (*around(shape, BITS_31 // 2), *around(shape, BITS_31)):
            for work, case, parts in passes(size, planes, pool, dtype, machine):
                largest = counted(work, case, parts)
                assert case.wide or largest < BITS_31, (size, machine, case)
                seen.add(case.wide)
    assert seen == {False, True}


@pytest.mark.parametrize(("planes", "pool"), FORMS)
def test_offsets_have_64_bits_only_where_they_need_them(planes, pool):
    for elements, wide in ((BITS_31 - 2**22, False), (BITS_31, True)):
        size = around((None, 64, 32, 32), elements)[1]
        assert {case.wide for _, case, _ in passes(size, planes, pool, torch.float16, MACHINES[0])} == {wide}


def test_what_needs_64_bits_takes_the_split_form():
    for machine, dtype in itertools.product(MACHINES, DTYPES):
        assert plan.is_resident((16, 2**12, 16, 16), True, False, dtype, machine)
        assert not plan.is_resident((16, 2**20, 16, 16), True, False, dtype, machine)
