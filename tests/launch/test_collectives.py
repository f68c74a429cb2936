import math

import pytest

from stepjax.launch.collectives import Collective, find_collectives, transfer_seconds

# Cut from the text of a compiled program: a loop of 12 trips that gathers on each, a
# loop whose length is not in the text, and a reduction after them.
PROGRAM = """HloModule jit_f, is_scheduled=true

%cond.1 (arg: (s32[], bf16[16,512])) -> pred[] {
  %constant.5 = s32[]{:T(128)} constant(12)
  %arg = (s32[]{:T(128)}, bf16[16,512]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.5), direction=LT
}

%start.1 (p: bf16[1,512,512]) -> (bf16[1,512,512], bf16[1,2048,512]) {
  %p = bf16[1,512,512]{2,1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.36 = bf16[1,2048,512]{2,1,0} all-gather(%p), channel_id=14, \
replica_groups=[4,4]<=[4,4]T(1,0), dimensions={1}, use_global_device_ids=true
  ROOT %custom-call.4 = (bf16[1,512,512]{2,1,0}) custom-call(%all-gather.36)
}

%done.1 (p: bf16[1,512,512]) -> bf16[1,2048,512] {
  %p = bf16[1,512,512]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.40 = bf16[1,2048,512]{2,1,0} all-gather(%p), channel_id=14, \
replica_groups=[4,4]<=[4,4]T(1,0), dimensions={1}, use_global_device_ids=true
}

%body.1 (arg: (s32[], bf16[16,512])) -> (s32[], bf16[16,512]) {
  %arg = (s32[]{:T(128)}, bf16[16,512]{1,0:T(8,128)(2,1)}) parameter(0)
  %f.1 = (bf16[1,512,512]{2,1,0}) fusion(%arg), kind=kCustom, calls=%start.1
  %f.2 = bf16[1,2048,512]{2,1,0} fusion(%f.1), kind=kCustom, calls=%done.1
  %one = bf16[8,8]{1,0} all-gather(%x), channel_id=3, replica_groups={{0},{1}}
  ROOT %t = (s32[]{:T(128)}, bf16[16,512]{1,0}) tuple(%f.2)
}

%cond.2 (arg: (s32[], s32[])) -> pred[] {
  %arg = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  ROOT %lt = pred[]{:T(512)} compare(%a, %b), direction=LT
}

%body.2 (arg: (s32[], s32[])) -> (s32[], s32[]) {
  %arg = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %w = (s32[], bf16[16,512]) while(%arg), condition=%cond.1, body=%body.1
  %m = bf16[8,8]{1,0} add(%x, %x), metadata={op_name="jit(f)/while/body/jvp(inner)/add"}
  %f = bf16[512,512]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %t = (s32[], s32[]) tuple(%arg)
}

%all-reduce-scatter.1 (input: bf16[2048,512]) -> bf16[512,512] {
  %all-reduce.8 = bf16[2048,512]{1,0} all-reduce(%input), channel_id=12, \
replica_groups={{0,4,8,12},{1,5,9,13}}, to_apply=%add
  ROOT %s = bf16[512,512]{1,0} dynamic-slice(%all-reduce.8), dynamic_slice_sizes={1}
}

ENTRY %main.1 (p: f32[10]) -> f32[10] {
  %w = (s32[], s32[]) while(%p), condition=%cond.2, body=%body.2
  ROOT %all-reduce.1 = f32[10]{0} all-reduce(%p), channel_id=1, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, to_apply=%add
}
"""


def started(line: str) -> Collective:
    """What a program of one line sends."""
    text = f"ENTRY %m (p: f32[8]) -> f32[8] {{\n  %x = {line}, \
replica_groups=[1,4]<=[4]\n}}\n"
    (found,) = find_collectives(text, 4)
    return found


def test_known_program():
    items = find_collectives(PROGRAM, 8, scopes=("inner", "outer"))
    found = {item.kind: item for item in items}
    assert len(found) == len(items) == 3
    gather = found["all-gather"]
    assert (gather.times, gather.loop, gather.devices) == (12, "inner", 4)
    assert gather.size == 2048 * 512 * 2
    assert found["reduce-scatter"].size == 2048 * 512 * 2
    assert found["reduce-scatter"].times == 1
    assert found["reduce-scatter"].loop == "inner"
    reduce = found["all-reduce"]
    assert (reduce.devices, reduce.loop, reduce.size) == (8, None, 40)


def test_a_loop_without_a_known_scope():
    gather = find_collectives(PROGRAM, 8, scopes=("outer",))[0]
    assert (gather.kind, gather.loop) == ("all-gather", "")


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("(f32[1000], f32[500]) all-reduce-start(%a, %b)", 6000),
        ("f32[1000]{0:T(1024)} all-reduce-start(%a)", 4000),
        ("(f32[250], f32[1000]) all-gather-start(%a)", 4000),
        (
            "((f32[250]{0:T(256)}, /*index=1*/bf16[10,2]{1,0:T(8,128)(2,1)S(1)}), "
            "(f32[1000], bf16[40,2]{1,0:T(8,128)(2,1)})) all-gather-start(%a, %b)",
            4160,
        ),
        ("((f32[1000]), f32[250], s32[]) reduce-scatter-start(%a)", 4000),
        ("f32[250] reduce-scatter(%a)", 4000),
        ("(f32[1000], f32[1000], u32[]{:S(2)}, u32[]) collective-permute-start(%a)",
         4000),
        ("(f32[100], bf16[100]) all-to-all(%a, %b)", 600),
    ],
)  # fmt: skip
def test_sizes_of_what_is_sent(line, size):
    assert started(line).size == size


def test_both_branches_are_followed():
    text = """%yes (p: f32[8]) -> f32[8] {
  ROOT %a = f32[8]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1}}
}

%no (p: f32[8]) -> f32[16] {
  ROOT %a = f32[16]{0} all-gather(%p), channel_id=2, replica_groups={{0,1}}
}

ENTRY %m (p: f32[8]) -> f32[8] {
  ROOT %c = f32[8]{0} conditional(%q, %p, %p), true_computation=%yes, \
false_computation=%no
}
"""
    kinds = {item.kind for item in find_collectives(text, 2)}
    assert kinds == {"all-reduce", "all-gather"}


def test_a_kernel_with_settings_of_several_lines_ends_nothing():
    text = """ENTRY %m (p: f32[8]) -> f32[8] {
  %k = f32[8]{0} custom-call(%p), backend_config={"custom_call_config": {"about": "{
  block: 512
}"}}
  ROOT %a = f32[8]{0} all-reduce(%k), channel_id=1, replica_groups={{0,1}}
}
"""
    (found,) = find_collectives(text, 2)
    assert (found.kind, found.size) == ("all-reduce", 32)


def test_scattered_sums_that_share_a_channel_count_one_by_one():
    part = """%all-reduce-scatter.{0} (p: f32[8]) -> f32[4] {{
  %a = (f32[8]{{0}}, f32[8]{{0}}) all-reduce(%p, %p), channel_id=1, \
replica_groups={{{{0,1}}}}
}}

"""
    text = part.format(1) + part.format(2)
    text += """ENTRY %m (p: f32[8]) -> f32[8] {
  %f = f32[4]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %g = f32[4]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.2
}
"""
    found = find_collectives(text, 2)
    assert [(item.kind, item.size) for item in found] == [("reduce-scatter", 64)] * 2


def test_transfer_seconds_by_hand():
    gather = Collective(kind="all-gather", size=8e9, devices=4, times=2, loop="a")
    # Twice 3/4 of 8 GB over two links of 1 GB/s; one trip of the loop.
    assert transfer_seconds([gather], link_rate=1e9) == pytest.approx(6.0)
    reduce = Collective(kind="all-reduce", size=8e9, devices=2, times=1, loop=None)
    assert transfer_seconds([reduce], link_rate=1e9) == pytest.approx(4.0)
    assert transfer_seconds([gather, reduce], link_rate=1e9) == pytest.approx(10.0)


@pytest.mark.parametrize("devices", [2, 3, 4, 8])
def test_all_to_all_on_a_ring_hop_by_hop(devices):
    hops = [
        min((to - at) % devices, (at - to) % devices)
        for at in range(devices)
        for to in range(devices)
    ]
    carried = sum(hops) * 8e9 / devices / (2 * devices)  # over each link, one way
    item = Collective(kind="all-to-all", size=8e9, devices=devices, times=1, loop=None)
    found = transfer_seconds([item], link_rate=1e9)
    assert math.isclose(found, carried / 1e9)


def test_text_without_collectives():
    assert find_collectives("", 8) == []
    assert find_collectives("ENTRY %m (a: f32[]) -> f32[] {\n}\n", 8) == []
