"""The least share of multiply-adds in the inner loop that each kernel must compile to. Values may only be raised.

Key: (family, tile); the value holds for every architecture from sm_75 to sm_120 unless `EXCEPTIONS` names one. What
was measured when a bound was set stands in the comment: the lowest over all seven architectures, with relu.
"""

from gpuprop.measure.bench.sass import Report

FMA_FRACTION = {
    ("forward", "128x128_8x8"): 0.87,  # 0.872
    ("forward dropout", "128x128_8x8"): 0.87,  # 0.8707 of all nine activations
    ("delta", "128x128_8x8"): 0.87,  # 0.875
    ("delta dropout", "128x128_8x8"): 0.859,  # 0.8591 of all nine activations
    ("gradient", "128x128_8x8"): 0.87,  # 0.8737
    ("forward", "64x64_8x4"): 0.825,  # 0.828
    ("forward dropout", "64x64_8x4"): 0.815,  # 0.819 of all nine activations
    ("delta", "64x64_8x4"): 0.82,  # 0.821
    ("delta dropout", "64x64_8x4"): 0.811,  # 0.8114 of all nine activations
    ("gradient", "64x64_8x4"): 0.825,  # 0.830
    ("gradient update", "64x64_8x4"): 0.825,  # 0.830
    ("forward", "64x64_4x4"): 0.775,  # 0.778
    ("forward dropout", "64x64_4x4"): 0.775,  # 0.776 of all nine activations
    ("delta", "64x64_4x4"): 0.77,  # 0.771
    ("delta dropout", "64x64_4x4"): 0.77,  # 0.773 of all nine activations
    ("gradient", "64x64_4x4"): 0.78,  # 0.783
    ("gradient update", "64x64_4x4"): 0.78,  # 0.785
    ("forward", "32x32_4x4"): 0.695,  # 0.699
    ("forward dropout", "32x32_4x4"): 0.69,
    ("delta", "32x32_4x4"): 0.69,  # 0.692
    ("delta dropout", "32x32_4x4"): 0.685,
    ("gradient", "32x32_4x4"): 0.69,  # 0.699
    ("gradient update", "32x32_4x4"): 0.70,
    # The loop over gathered rows, lowest with uint8: each row's place in the data set is read and multiplied out in the
    # loop, and its bytes are converted. The .74 first asked for, of what had been measured of 64x64_8x4, is kept by the
    # larger tiles but for 64x64_4x4 of sm_100 and sm_120 (0.736); 32x32 is at 0.621 of sm_120, 0.667 of sm_86.
    ("gradient gathering", "128x128_8x8"): 0.85,  # 0.8505
    ("gradient gathering", "64x64_8x4"): 0.785,  # 0.789 of sm_90
    ("gradient gathering", "64x64_4x4"): 0.735,
    ("gradient gathering", "32x32_4x4"): 0.62,
    ("gradient update gathering", "64x64_8x4"): 0.785,  # 0.789 of sm_90
    ("gradient update gathering", "64x64_4x4"): 0.735,
    ("gradient update gathering", "32x32_4x4"): 0.62,
    # Behind the multiply a block may go on to the rows' losses; the compiler saves registers for that in the loop. For
    # sm_90 it computes the base of shared memory anew for each step of a 64x64_8x4 slab (17 UMOV, 16 ULEA).
    ("wide", "128x128_8x8"): 0.86,  # 0.865
    ("wide", "64x64_8x4"): 0.815,  # 0.818
    ("wide", "64x64_4x4"): 0.755,  # 0.7596
    ("wide", "32x32_4x4"): 0.69,  # 0.699
    # Without a hidden layer it gathers; see below.
    ("wide gathering", "128x128_8x8"): 0.875,  # 0.8752
    ("wide gathering", "64x64_8x4"): 0.815,  # 0.816
    ("wide gathering", "64x64_4x4"): 0.765,  # 0.7653
    ("wide gathering", "32x32_4x4"): 0.65,  # 0.653
    ("wide gathering by column", "128x128_8x8"): 0.845,  # 0.849
    ("wide gathering by column", "64x64_8x4"): 0.78,  # 0.7817
    ("wide gathering by column", "64x64_4x4"): 0.72,  # 0.721 of sm_90, 0.730 of sm_86
    ("wide gathering by column", "32x32_4x4"): 0.605,  # 0.6095
    # The load also converts, two or three instructions for every byte: the assembler prefers a shift, a mask and I2FP
    # to I2F.U8 even where PTX asks for cvt.f32.u8 (measured: 193 instructions instead of 194). And in a 32x32 tile a
    # thread makes only 128 multiply-adds a slab. The .74 first asked for, which the 64x64 tiles exceed, would allow 44
    # other instructions: 16 loads from shared and 2 from global memory, 5 stores, 10 conversions and a barrier leave 10
    # for addresses, bounds and branches, of which the same tile spends three times as many without gathering (0.699).
    # The larger tiles take bytes two slabs a turn (`sectors`): 0.8805, 0.828 and 0.788.
    ("forward gathering", "128x128_8x8"): 0.87,
    ("forward gathering", "64x64_8x4"): 0.825,
    ("forward gathering", "64x64_4x4"): 0.78,  # floats 0.783
    ("forward gathering", "32x32_4x4"): 0.65,  # 0.656
    # By column, every element has a shift and a scale of its own: two more instructions, and two loads of 128 bits for
    # every four elements. Folding the shift into one multiply-add (x * scale - shift * scale) would lose what x - shift
    # keeps where features lie far from zero.
    ("forward gathering by column", "128x128_8x8"): 0.845,  # 0.8477
    ("forward gathering by column", "64x64_8x4"): 0.79,  # 0.7938
    ("forward gathering by column", "64x64_4x4"): 0.745,  # 0.7496
    ("forward gathering by column", "32x32_4x4"): 0.605,  # 0.610
}

EXCEPTIONS: dict[tuple[str, str, tuple[int, int]], float] = {
    # 0.6845, one instruction too many, measured for the first time.
    ("delta dropout", "32x32_4x4", (9, 0)): 0.684,
    # 0.6995, measured for the first time.
    ("gradient update", "32x32_4x4", (12, 0)): 0.695,
    # See `wide` above.
    ("wide", "64x64_8x4", (9, 0)): 0.765,  # 0.7676
    # 0.6772, measured for the first time.
    ("wide", "32x32_4x4", (10, 0)): 0.675,
    ("wide", "32x32_4x4", (12, 0)): 0.675,
}

# A 128-bit load from shared memory brings two doubles, so that the 128 multiply-adds of a slab of 32x32 come with 32
# loads instead of 16. The .66 of 64x64 would leave 33 other instructions; the same loop spends 39 of them in float32.
# Forward and delta, with and without dropout, all activations: .621 to .637 to sm_90, .595 of sm_100, .590 of sm_120.
# Gradients: .643 to sm_89, .618 of sm_90, .621 and .637 of sm_100 and sm_120.
FLOAT64_EXCEPTIONS = {
    **{(family, "32x32_4x4"): 0.585 for family in ("forward", "delta")},
    **{(family, "32x32_4x4"): 0.615 for family in ("gradient", "gradient update")},
    ("wide", "64x64_4x4"): 0.645,  # .6497 of sm_90, for the reason that stands at `wide` above; first measured
    ("wide", "32x32_4x4"): 0.575,  # .579 of sm_90, .593 of sm_120; first measured
}
FLOAT64_FRACTION = 0.66
"""Every other float64 kernel; tiles of at most 64x64 with 4x4 results a thread, gathering kernels excepted."""

BLOCKS = {"128x128_8x8": 2, "64x64_8x4": 3, "64x64_4x4": 3, "32x32_4x4": 3}
"""Blocks that must fit one multiprocessor in float32, by tile."""


REGISTERS = {("block", "float32"): 80, ("block", "float64"): 128}
"""The most registers of a thread in kernels whose shared memory the launch chooses, by family: what a block of 256
threads leaves for others on its multiprocessor. Measured in float32: 72 of sm_80, sm_86 and sm_89, with everything."""

TENSOR_FRACTION = {
    # The lowest of forward, delta, gradient and wide output, dense or of gathered bytes, for sm_80 to sm_120.
    "128x128_8x8_tf32x3": 0.185,  # 0.1868 of a wide output; 48 instructions come with 64 additions outside
    "128x128_8x8_tf32": 0.1,  # 0.145 of gathered gradients, dense 0.160 to 0.173; sm_100 and sm_120 from 0.1013 on
    "128x128_8x8_bf16": 0.085,  # 0.120 of gathered gradients, dense 0.146 to 0.168; sm_100 and sm_120 from 0.0860 on
    "64x64_8x4_tf32x3": 0.13,  # 0.1304 of a gathered gradient with adam; others 0.142 to 0.150
    "64x64_8x4_tf32": 0.08,  # 0.0816 of a gathered gradient with adam; others 0.1006 to 0.104
    "64x64_8x4_bf16": 0.0645,  # 0.0650 of a gathered gradient with adam; others 0.088 to 0.099
    "32x32_4x4_tf32x3": 0.083,  # 0.0833
    "32x32_4x4_tf32": 0.041,  # 0.0412
    "32x32_4x4_bf16": 0.0365,  # 0.0370
}
"""The least share of tensor-core instructions in the inner loop, by tile; each does 1,024 multiply-adds, or 2,048."""

TENSOR_BLOCKS = {"128x128": 2, "64x64": 3, "32x32": 3}
"""Blocks that must fit one multiprocessor on tensor cores; sm_86, sm_89 and sm_120 have less shared memory."""


def tensor_violations(report: Report) -> list[str]:
    """Return what is wrong with a kernel of tensor cores beside spills."""
    least = 2 if report.capability in ((8, 6), (8, 9), (12, 0)) else TENSOR_BLOCKS[report.tile.partition("_")[0]]
    bound, share = TENSOR_FRACTION[report.tile], report.tensor_fraction
    found = [
        (share < bound, f"share of tensor-core instructions {share:.4f} < {bound}"),
        (report.occupancy < least, f"{report.occupancy} blocks fit a multiprocessor"),
        (report.shared > 48 * 1024, f"{report.shared} bytes of shared memory, which needs an attribute"),
    ]
    return [what for wrong, what in found if wrong]


def violations(report: Report) -> list[str]:
    """Return what is wrong with a compiled kernel."""
    found: list[tuple[object, str]] = [
        (report.spilled, f"spills {report.spilled} bytes"),
        (report.local, f"{report.local} accesses to local memory"),
        (report.dtype == "float32" and report.float64, f"{report.float64} float64 instructions"),
    ]
    if report.family == "block":
        generic = [op for op in report.total if op.startswith(("LD.", "ST."))]
        most = REGISTERS[report.family, report.dtype]
        found += [
            (report.registers > most, f"{report.registers} registers > {most}"),
            (generic, f"accesses that do not know whether memory is shared: {generic}"),
            (report.shared, f"{report.shared} bytes of shared memory beside those of the launch"),
        ]
    if report.tile in TENSOR_FRACTION:
        found += [(True, what) for what in tensor_violations(report)]
    elif report.tile:
        shared, global_ = report.loads("LDS"), report.loads("LDG")
        narrow = [op for op in global_ if "128" not in op]
        found += [
            (not shared or not all("128" in op for op in shared), f"loads from shared memory in the loop: {shared}"),
            (len(narrow) == len(global_), f"loads from global memory in the loop: {global_}"),
            # Bytes of the data set come four at a time, and the permutation with them.
            (narrow and "gathering" not in report.family, f"loads from global memory in the loop: {global_}"),
            (report.fma_fraction < fma_bound(report), f"FMA share {report.fma_fraction:.4f} < {fma_bound(report)}"),
            (report.occupancy < least_blocks(report), f"{report.occupancy} blocks fit a multiprocessor"),
        ]
    return [f"{report.name}: {what}" for wrong, what in found if wrong]


def fma_bound(report: Report) -> float:
    """Return the least share of multiply-adds of a kernel."""
    if report.dtype == "float64":
        if "gathering" in report.family:
            return 0.0
        return FLOAT64_EXCEPTIONS.get((report.family.removesuffix(" dropout"), report.tile), FLOAT64_FRACTION)
    key = report.family, report.tile
    return EXCEPTIONS.get((*key, report.capability), FMA_FRACTION[key])


def least_blocks(report: Report) -> int:
    """Return how many blocks must fit a multiprocessor."""
    return BLOCKS[report.tile] if report.dtype == "float32" else 1
