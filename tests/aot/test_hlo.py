"""What a compiled step moves and computes, for programs whose numbers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffmavil_jax.aot.flops import matmul_flops
from diffmavil_jax.aot.hlo import Hlo


def test_flops_of_loops_branches_and_gradients_are_counted_as_often_as_they_run():
    x, w = jnp.ones((8, 16)), jnp.ones((3, 16, 16))

    def loop(x, w):
        return jax.lax.scan(lambda x, w: (jax.checkpoint(lambda x: x @ w)(x), None), x, w)[0].sum()

    once = 2 * 8 * 16 * 16
    assert matmul_flops(jax.make_jaxpr(loop)(x, w)) == 3 * once
    assert matmul_flops(jax.make_jaxpr(jax.jit(jax.grad(loop, (0, 1))))(x, w)) == 3 * 3 * once

    def branch(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w[0] @ w[1], lambda: x @ w[0])

    assert matmul_flops(jax.make_jaxpr(branch)(x, w)) == 2 * once
    batched = jax.make_jaxpr(lambda a, b: jnp.einsum('bij,bkj->bik', a, b))(
        jnp.ones((5, 2, 4)), jnp.ones((5, 3, 4))
    )
    assert matmul_flops(batched) == 2 * 5 * 2 * 3 * 4


@pytest.fixture(scope='module')
def sharded():
    """A loop of five iterations with one all-reduce each, over four devices, two and two together."""
    mesh = Mesh(np.asarray(jax.devices()[:4]).reshape(2, 2), ('data', 'tensor'))

    def place(*spec):
        return NamedSharding(mesh, PartitionSpec(*spec))

    def loop(x, w):
        def layer(x, w):
            return jax.lax.with_sharding_constraint(x @ w, place()), None

        return jax.lax.scan(layer, x, w)[0]

    shapes = (
        jax.ShapeDtypeStruct((8, 64), jnp.float32, sharding=place()),
        jax.ShapeDtypeStruct((5, 64, 64), jnp.float32, sharding=place(None, 'tensor')),
    )
    return Hlo(jax.jit(loop).lower(*shapes).compile().as_text())


def test_collectives_in_a_loop_count_as_often_as_it_runs(sharded):
    (reduce,) = sharded.collectives()
    assert (reduce.kind, reduce.count, reduce.group) == ('all-reduce', 5, 2)
    assert reduce.bytes == 8 * 64 * 4
    assert reduce.sent == reduce.bytes  # half of it twice
    assert 'while' in reduce.where


def test_traffic_counts_the_slice_that_an_iteration_reads(sharded):
    weights, activations = 5 * 32 * 64 * 4, 8 * 64 * 4
    assert weights < sharded.memory_traffic() < 2.5 * weights + 5 * 8 * activations


def test_traffic_of_one_operation_is_its_inputs_and_its_result():
    x = jnp.ones((256, 256))
    hlo = Hlo(jax.jit(lambda x, y: jnp.tanh(x) + 2 * y).lower(x, x).compile().as_text())
    assert hlo.memory_traffic() == 3 * 256 * 256 * 4
    assert hlo.collectives() == []


# As the TPU compiler writes it: no trip counts, S(1) for on-chip memory, and one all-gather in pieces
# that run beside the operations of the loop.
TPU = """\
HloModule jit_step, is_scheduled=true

%piece.1 (p.0: bf16[1,4]) -> bf16[16,4] {
  %p.0 = bf16[1,4]{1,0:T(4,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[16,4]{1,0:T(4,128)(2,1)} all-gather(%p.0), channel_id=9, replica_groups=mesh['axis_0'=16,'axis_1'=1] {'axis_0'}, dimensions={0}
}

%update.1 (p.1: f32[6,128], p.2: f32[1,128], p.3: s32[]) -> f32[6,128] {
  %p.1 = f32[6,128]{1,0:T(8,128)} parameter(0)
  %p.2 = f32[1,128]{1,0:T(8,128)S(1)} parameter(1)
  %p.3 = s32[]{:T(128)} parameter(2)
  ROOT %dynamic-update-slice.1 = f32[6,128]{1,0:T(8,128)} dynamic-update-slice(%p.1, %p.2, %p.3, %p.3)
}

%condition (c.0: (s32[], f32[6,128])) -> pred[] {
  %c.0 = (s32[]{:T(128)}, f32[6,128]{1,0:T(8,128)}) parameter(0)
  %constant.1 = s32[]{:T(128)} constant(6)
  %get-tuple-element.1 = s32[]{:T(128)} get-tuple-element(%c.0), index=0
  ROOT %compare.1 = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.1), direction=LT
}

%body (b.0: (s32[], f32[6,128])) -> (s32[], f32[6,128]) {
  %b.0 = (s32[]{:T(128)}, /*index=1*/f32[6,128]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.2 = s32[]{:T(128)} get-tuple-element(%b.0), index=0
  %get-tuple-element.3 = f32[6,128]{1,0:T(8,128)} get-tuple-element(%b.0), index=1
  %slice-start.1 = ((f32[6,128]{1,0:T(8,128)}), f32[1,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%get-tuple-element.3), slice={[0:1], [0:128]}
  %slice-done.1 = f32[1,128]{1,0:T(8,128)S(1)} slice-done(%slice-start.1)
  %all-reduce.1 = (f32[1,128]{1,0:T(8,128)S(1)}, f32[2]{0:T(128)S(1)}) all-reduce(%slice-done.1, %slice-done.1), channel_id=7, replica_groups=[4,4]<=[16], to_apply=%add, metadata={op_name="jit(step)/layers/while/body/dot_general"}
  %gathering.1 = bf16[16,4]{1,0:T(4,128)(2,1)S(1)} fusion(%slice-done.1), kind=kCustom, calls=%piece.1
  %update.2 = f32[6,128]{1,0:T(8,128)} fusion(%get-tuple-element.3, %slice-done.1, %get-tuple-element.2), kind=kLoop, calls=%update.1
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[6,128]{1,0:T(8,128)}) tuple(%get-tuple-element.2, %update.2)
}

ENTRY %main (e.0: f32[6,128]) -> f32[6,128] {
  %e.0 = f32[6,128]{1,0:T(8,128)} parameter(0)
  %constant.2 = s32[]{:T(128)} constant(0)
  %begin.1 = bf16[16,4]{1,0:T(4,128)(2,1)S(1)} fusion(%constant.2), kind=kCustom, calls=%piece.1
  %tuple.2 = (s32[]{:T(128)}, f32[6,128]{1,0:T(8,128)}) tuple(%constant.2, %e.0)
  %while.1 = (s32[]{:T(128)}, f32[6,128]{1,0:T(8,128)}) while(%tuple.2), condition=%condition, body=%body
  ROOT %get-tuple-element.4 = f32[6,128]{1,0:T(8,128)} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501


def test_the_text_of_a_tpu_program_is_read_with_its_loops_and_pieces():
    hlo = Hlo(TPU)
    reduce, gather = hlo.collectives()
    assert (reduce.kind, reduce.count, reduce.bytes, reduce.group) == ('all-reduce', 6, 130 * 4, 4)
    assert reduce.sent == 2 * 130 * 4 * 3 / 4
    assert (gather.kind, gather.count, gather.bytes, gather.group) == ('all-gather', 1, 16 * 4 * 2, 16)


def test_what_stays_on_the_chip_is_no_traffic():
    row = 128 * 4
    # An iteration reads a row and writes one. The small operands of the pieces are on the chip or constants.
    slices, updates = 6 * row, 6 * row
    counter = 6 * 4
    assert Hlo(TPU).memory_traffic() == pytest.approx(slices + updates + counter, abs=6 * 4 + 4)


# As the CUDA compiler writes it: an update in place inside an asynchronous fusion, under another name by a
# bitcast; kernels of libraries as custom calls, with a workspace; a custom call that is only a mark.
GPU = """\
HloModule jit_step, is_scheduled=true

%fused_update (p.0: bf16[12,64,32], p.1: s32[], p.2: bf16[64,32]) -> bf16[12,64,32] {
  %p.0 = bf16[12,64,32]{2,1,0} parameter(0)
  %flat.1 = bf16[12,2048]{1,0} bitcast(%p.0)
  %p.2 = bf16[64,32]{1,0} parameter(2)
  %flat.2 = bf16[1,2048]{1,0} bitcast(%p.2)
  %p.1 = s32[] parameter(1)
  %constant.1 = s32[] constant(0)
  %update.1 = bf16[12,2048]{1,0} dynamic-update-slice(%flat.1, %flat.2, %p.1, %constant.1)
  ROOT %back.1 = bf16[12,64,32]{2,1,0} bitcast(%update.1)
}

%fused_slice (q.0: bf16[12,64,32], q.1: s32[]) -> bf16[64,32] {
  %q.0 = bf16[12,64,32]{2,1,0} parameter(0)
  %q.1 = s32[] parameter(1)
  %constant.2 = s32[] constant(0)
  %slice.1 = bf16[1,64,32]{2,1,0} dynamic-slice(%q.0, %q.1, %constant.2, %constant.2), dynamic_slice_sizes={1,64,32}
  ROOT %flat.3 = bf16[64,32]{1,0} bitcast(%slice.1)
}

ENTRY %main (e.0: bf16[12,64,32], e.1: s32[], e.2: bf16[64,32]) -> bf16[12,64,32] {
  %e.0 = bf16[12,64,32]{2,1,0} parameter(0)
  %e.1 = s32[] parameter(1)
  %e.2 = bf16[64,32]{1,0} parameter(2)
  %mark.1 = bf16[64,32]{1,0} custom-call(%e.2), custom_call_target="annotate_device_placement"
  %read.1 = bf16[64,32]{1,0} fusion(%e.0, %e.1), kind=kLoop, calls=%fused_slice
  %gemm.1 = (bf16[64,32]{1,0}, s8[33554432]{0}) custom-call(%read.1, %e.2), custom_call_target="__cublas$lt$matmul"
  %product.1 = bf16[64,32]{1,0} get-tuple-element(%gemm.1), index=0
  %attention.1 = (bf16[64,32]{1,0}, f32[64]{0}, u8[0]{0}) custom-call(%product.1, %read.1, %e.2), custom_call_target="__cudnn$fmhaSoftmax"
  %mixed.1 = bf16[64,32]{1,0} get-tuple-element(%attention.1), index=0
  %start.1 = ((bf16[12,64,32]{2,1,0}, s32[], bf16[64,32]{1,0}), bf16[12,64,32]{2,1,0}, u32[]) fusion-start(%e.0, %e.1, %mixed.1), kind=kLoop, calls=%fused_update
  ROOT %done.1 = bf16[12,64,32]{2,1,0} fusion-done(%start.1)
}
"""  # noqa: E501


def test_a_gpu_program_moves_what_its_kernels_read_and_write():
    part, index = 64 * 32 * 2, 4
    read = part + index + part  # one of twelve parts, and what is made of it
    gemm = 2 * part + part  # no workspace
    attention = 3 * part + part + 64 * 4
    update = part + index + part  # in place: the other eleven parts stay where they are
    assert Hlo(GPU).memory_traffic() == read + gemm + attention + update


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match='no ENTRY'):
        Hlo('HloModule nothing\n')
