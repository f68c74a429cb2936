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


def test_known_program():
    found = {item.kind: item for item in find_collectives(PROGRAM, 8)}
    assert len(found) == len(find_collectives(PROGRAM, 8)) == 3
    gather = found["all-gather"]
    assert (gather.times, gather.repeated, gather.devices) == (12, True, 4)
    assert gather.size == 2048 * 512 * 2
    assert found["reduce-scatter"].size == 2048 * 512 * 2
    assert found["reduce-scatter"].times == 1 and found["reduce-scatter"].repeated
    reduce = found["all-reduce"]
    assert (reduce.devices, reduce.repeated, reduce.size) == (8, False, 40)


def test_transfer_seconds_by_hand():
    gather = Collective(kind="all-gather", size=8e9, devices=4, times=2, repeated=True)
    # Twice 3/4 of 8 GB over two links of 1 GB/s, in each of 5 trips.
    assert transfer_seconds([gather], link_rate=1e9, repeats=5) == pytest.approx(30.0)
    reduce = Collective(kind="all-reduce", size=8e9, devices=2, times=1, repeated=False)
    assert transfer_seconds([reduce], link_rate=1e9, repeats=5) == pytest.approx(4.0)


def test_text_without_collectives():
    assert find_collectives("", 8) == []
    assert find_collectives("ENTRY %m (a: f32[]) -> f32[] {\n}\n", 8) == []
