import jax
import numpy as np
import pytest

from stepjax.envs.sim import drafts, load_world, tasks, vocabulary
from stepjax.envs.sim.items import ItemKind
from stepjax.envs.sim.state import INSTRUCTION_WORDS
from stepjax.envs.sim.world import build_world
from stepjax.envs.words import clauses, split_words, word_id


def test_splits_have_the_papers_sizes(table):
    assert len(table.names) == len(set(table.names)) == 369
    assert table.train_ids.shape == (128,) and table.unseen_ids.shape == (241,)
    ids = np.concatenate([table.train_ids, table.unseen_ids])
    assert sorted(ids.tolist()) == list(range(369))
    assert table.infeasible.sum() == 30
    assert table.infeasible[table.train_ids].sum() == 12


def test_domains_have_osworlds_sizes(table):
    counts = {name: table.domains.count(name) for name in vocabulary.DOMAINS}
    assert list(counts.values()) == [46, 26, 47, 47, 23, 24, 15, 17, 23, 101]
    in_training = {table.domains[i] for i in table.train_ids}
    assert in_training == set(vocabulary.DOMAINS)


def test_instructions_are_unique_and_fit(table):
    assert len(set(table.instructions)) == 369
    assert table.instruction(5, seed=9) == table.instructions[5]
    for text in table.instructions:
        assert sum(word_id(word) > 0 for word in split_words(text)) <= INSTRUCTION_WORDS


def test_word_arrays_equal_what_a_page_reader_makes(pool, table):
    for i in range(0, 369, 7):
        words = split_words(table.instructions[i])
        pairs = [
            (word_id(word), clause)
            for word, clause in zip(words, clauses(words), strict=True)
            if word_id(word)
        ]
        ids = np.asarray(pool.tasks.words[i])
        assert ids[ids > 0].tolist() == [number for number, _ in pairs]
        clause = np.asarray(pool.tasks.clause[i])[: len(pairs)]
        assert clause.tolist() == [number for _, number in pairs]


def test_each_goal_has_its_own_clause(pool):
    last = np.asarray(pool.tasks.clause).max(axis=1)
    np.testing.assert_array_equal(last + 1, pool.tasks.num_goals)


def test_every_goal_differs_from_the_start(pool):
    item = np.asarray(pool.tasks.goal_item)
    real = item >= 0
    value = np.asarray(pool.tasks.goal_value)
    start = np.asarray(pool.item_default)[item]
    assert np.all((value != start)[real])
    kinds = np.asarray(pool.item_kind)[item]
    assert not np.any((kinds == ItemKind.TRAP) & real)


def test_texts_to_type_stand_in_the_instruction(pool):
    item = np.asarray(pool.tasks.goal_item)
    is_text = (np.asarray(pool.item_kind)[item] == ItemKind.TEXT) & (item >= 0)
    assert is_text.any()
    for task, goal in zip(*np.nonzero(is_text), strict=True):
        assert pool.tasks.goal_value[task, goal] in np.asarray(pool.tasks.words[task])


def test_two_application_tasks_span_two_applications(pool, table):
    apps = np.asarray(pool.item_app)[np.asarray(pool.tasks.goal_item)]
    for i in range(369):
        real = np.asarray(pool.tasks.goal_item[i]) >= 0
        expected = 2 if table.domains[i] == "multi_apps" else 1
        if not table.infeasible[i]:
            assert len(set(apps[i][real])) == expected


def test_difficulty_is_spread(table):
    for ids in (table.train_ids, table.unseen_ids):
        expected = table.expected_success[ids]
        assert 0.3 < expected.mean() < 0.5
        share = np.histogram(expected, [0, *tasks._BIN_ENDS])[0] / len(ids)
        np.testing.assert_allclose(share, tasks._BIN_SHARES, atol=0.02)
        assert share.min() > 0.1


def test_unseen_tasks_share_names_with_training_as_planned():
    chosen, is_train = tasks.draft_tasks()
    names = [[index for index, _ in draft.goals] for draft in chosen]
    used = {index for i in range(369) if is_train[i] for index in names[i]}
    seen = [index in used for i in range(369) if not is_train[i] for index in names[i]]
    assert abs(np.mean(seen) - tasks._SHARED_ALIAS_SHARE) < 0.1


def test_practice_is_deterministic_and_never_a_task_of_the_pool():
    first, again = tasks.practice_tasks(200, 3), tasks.practice_tasks(200, 3)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = tasks.practice_tasks(200, 4)
    assert not np.array_equal(first.words, other.words)
    assert np.all(np.asarray(first.task_id) == -1)
    stacked = load_world().tasks
    taken = {_key(stacked.goal_alias[i], stacked.goal_value[i]) for i in range(369)}
    for alias, value in zip(first.goal_alias, first.goal_value, strict=True):
        assert _key(alias, value) not in taken


def _key(alias, value):
    pairs = zip(np.asarray(alias).tolist(), np.asarray(value).tolist(), strict=True)
    return frozenset((a, v) for a, v in pairs if a >= 0)


def test_names_hash_to_ids_of_their_own():
    quoted = [a.phrase for a in build_world().aliases if a.phrase.startswith('"')]
    values = [word for words in vocabulary.OPTION_SETS.values() for word in words]
    everything = [*quoted, *values, *vocabulary.TEXT_WORDS]
    assert len({word_id(word) for word in everything}) == len(everything)


def test_labels_leave_room_for_values():
    for item in build_world().items:
        limit = 2 if item.kind in (ItemKind.CHOICE, ItemKind.TEXT) else 3
        assert 1 <= len(item.label.split()) <= limit
        assert not {"and", "then"} & set(item.label.lower().split())


def test_an_instruction_that_does_not_fit_is_refused():
    world = build_world()
    long = next(
        i
        for i, alias in enumerate(world.aliases)
        if alias.kind == ItemKind.CHOICE and not alias.phrase.startswith('"')
    )
    draft = drafts.TaskDraft(
        domain=0,
        goals=((long, 1),) * 6,
        start_app=-1,
        disabled_item=-1,
        infeasible=False,
        style=0,
    )
    with pytest.raises(ValueError, match="at most 32"):
        tasks.stack_tasks(world, [draft], np.zeros(1))
