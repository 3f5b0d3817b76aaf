"""What a compiled program moves and computes, counted from the compiler's text: loops by their trips, tiles, VMEM."""

from __future__ import annotations

from ratchet_trainer.tools.hlo import Array, parsed
from ratchet_trainer.tools.hlo_traffic import traffic

LOOP = """HloModule jit_f, is_scheduled=true

%fused_read (param_0: bf16[4,128,128], param_1: s32[]) -> bf16[128,128] {
  %param_0 = bf16[4,128,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %slice = bf16[1,128,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%param_0, %param_1, %zero, %zero), dynamic_slice_sizes={1,128,128}
  ROOT %view = bf16[128,128]{1,0:T(8,128)(2,1)} bitcast(%slice)
}

%body (state: (s32[], bf16[64,128], bf16[4,128,128])) -> (s32[], bf16[64,128], bf16[4,128,128]) {
  %state = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[4,128,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%state), index=1
  %w = bf16[4,128,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=2
  %own = bf16[128,128]{1,0:T(8,128)(2,1)S(1)} fusion(%w, %i), kind=kLoop, calls=%fused_read
  %y = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} dot(%x, %own), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %next = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[4,128,128]{2,1,0:T(8,128)(2,1)}) tuple(%i, %y, %w)
}

%condition (state.1: (s32[], bf16[64,128], bf16[4,128,128])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[4,128,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %more = pred[]{:T(512)} constant(true)
}

ENTRY %main (x.1: bf16[64,128], w.1: bf16[4,128,128]) -> f32[60,64] {
  %x.1 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %w.1 = bf16[4,128,128]{2,1,0:T(8,128)(2,1)} parameter(1)
  %near = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} copy(%x.1)
  %i.1 = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[4,128,128]{2,1,0:T(8,128)(2,1)}) tuple(%i.1, %near, %w.1)
  %loop = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[4,128,128]{2,1,0:T(8,128)(2,1)}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"4"}}
  %last = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%loop), index=1
  ROOT %narrow = f32[60,64]{1,0:T(8,128)} convert(%last)
}
"""  # noqa: E501
BY_CONVOLUTION = """HloModule jit_g

ENTRY %main (a: bf16[8,64,32], b: bf16[8,32,16]) -> f32[8,64,16] {
  %a = bf16[8,64,32]{2,1,0} parameter(0)
  %b = bf16[8,32,16]{2,1,0} parameter(1)
  ROOT %c = f32[8,64,16]{2,1,0} convolution(%a, %b), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf
}
"""


def test_an_array_lies_in_whole_tiles() -> None:
    assert Array("bf16", (60, 64), (1, 0), (8, 128)).bytes == 64 * 128 * 2
    assert Array("bf16", (60, 64), (0, 1), (8, 128)).bytes == 64 * 128 * 2, "the fastest axis is the first"
    assert Array("f32", (3, 5)).bytes == 3 * 5 * 4
    assert Array("bf16", (60, 64), (1, 0), (8, 128), space=1).hbm_bytes == 0


def test_a_loop_counts_as_often_as_it_runs() -> None:
    found = traffic(parsed(LOOP))
    rows, matrix, result = 64 * 128 * 2, 128 * 128 * 2, 64 * 128 * 4
    assert found.flops == 4 * 2 * 64 * 128 * 128
    assert found.bytes == rows + 4 * matrix + result, "of the stack each turn reads its own matrix; VMEM costs nothing"
    assert not found.unknown


def test_a_loop_without_a_known_end_is_named() -> None:
    found = traffic(parsed(LOOP.replace('"known_trip_count":{"n":"4"}', "")))
    assert found.unknown == ["loop"]
    assert found.flops == 2 * 64 * 128 * 128


def test_of_a_convolution_only_what_is_multiplied_counts() -> None:
    assert traffic(parsed(BY_CONVOLUTION)).flops == 2 * 8 * 64 * 32 * 16, "a batch of products, written as one window"
