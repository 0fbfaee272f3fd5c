"""The objectives against closed forms, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import make, save
from hypothesis import given, settings
from hypothesis import strategies as st

import corecompress
from corecompress.errors import CorecompressError
from corecompress.recipe import Spec
from corecompress_distill.inputs import IGNORED, Inputs
from corecompress_distill.objectives import Scene, make_objectives
from corecompress_distill.objectives.logits import divergence, with_rest
from corecompress_distill.outputs import Outputs, Reader


def scene(task: str, teacher: str = "llama", student: str | None = None) -> Scene:
    models = make(teacher).eval(), make(student or teacher).eval()
    return Scene(task, *models, has_labels=task != "sentence-encoder", interleaved=lambda: teacher == "gpt-neox")


def tokens(rows: int = 3, length: int = 7) -> Inputs:
    torch.manual_seed(0)
    ids = torch.randint(5, 60, (rows, length))
    mask = torch.ones_like(ids).bool()
    mask[0, 4:] = False
    labels = torch.where(mask, ids.roll(-1, 1), IGNORED)
    return Inputs({"input_ids": ids, "attention_mask": mask.long()}, mask, labels)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), size=st.integers(2, 9))
def test_divergences_are_what_they_are_called(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(4, size, generator=generator).log_softmax(1).double() for _ in range(2))
    kl = torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
    torch.testing.assert_close(divergence("forward", p, q), kl)
    torch.testing.assert_close(divergence("reverse", q, p), kl)
    js = divergence("js", p, q)
    torch.testing.assert_close(js, divergence("js", q, p))
    assert 0 <= js <= 0.6931472
    assert divergence("forward", p, p).abs() < 1e-12


def test_all_logits_and_the_top_of_all_are_the_same() -> None:
    inputs, where = tokens(), scene("causal-lm")
    one, two = (Outputs(logits=torch.randn(3, 7, 64)) for _ in range(2))
    whole = make_objectives((Spec("logits"),), where)(one, two, inputs)["loss"]
    top = make_objectives((Spec("logits", {"top": 64}),), where)(one, two, inputs)["loss"]
    some = make_objectives((Spec("logits", {"top": 5}),), where)(one, two, inputs)["loss"]
    torch.testing.assert_close(whole, top, rtol=1e-4, atol=1e-5)
    assert 0 < some < whole  # what is joined is closer than its parts


def test_padding_does_not_count() -> None:
    inputs, where = tokens(), scene("causal-lm")
    mine, theirs = torch.randn(3, 7, 64), torch.randn(3, 7, 64)
    objective = make_objectives((Spec("logits"), Spec("labels")), where)
    before = objective(Outputs(logits=mine), Outputs(logits=theirs), inputs)["loss"]
    mine[0, 5] += 100 * torch.randn(64)
    torch.testing.assert_close(objective(Outputs(logits=mine), Outputs(logits=theirs), inputs)["loss"], before)


def test_the_rest_of_a_distribution_is_one_token() -> None:
    logs = torch.tensor([[0.5, 0.2]]).log()
    torch.testing.assert_close(with_rest(logs).exp(), torch.tensor([[0.5, 0.2, 0.3]]))


def test_the_same_model_has_nothing_to_learn() -> None:
    inputs = tokens()
    for family, task, names in (
        ("llama", "causal-lm", ("logits", "hidden", "relations")),
        ("gpt-neox", "causal-lm", ("relations",)),
        ("gpt2", "causal-lm", ("relations", "hidden")),
        ("bert", "sentence-encoder", ("embedding", "similarity", "hidden", "relations")),
    ):
        where = scene(task, family)
        objectives = make_objectives(tuple(map(Spec, names)), where)
        watched = getattr(objectives.parts["relations"], "of_teacher", None) if "relations" in names else None
        with torch.no_grad():
            out = Reader(where.teacher, objectives.needs, "mean", watched)(inputs)
            values = objectives(out, out, inputs)
        assert set(values) == {*names, "loss"}
        assert all(abs(float(value)) < 1e-5 for value in values.values()), values


def test_weights_are_weights() -> None:
    inputs, where = tokens(), scene("sentence-encoder", "bert")
    one, two = (Outputs(embedding=torch.randn(3, 32)) for _ in range(2))
    specs = Spec("embedding", {"weight": 2.0}), Spec("similarity", {"weight": 0.5})
    found = make_objectives(specs, where)(one, two, inputs)
    torch.testing.assert_close(found["loss"], 2 * found["embedding"] + 0.5 * found["similarity"])
    cosine = torch.cosine_similarity(one.embedding, two.embedding).mean()
    torch.testing.assert_close(found["embedding"], 1 - cosine)


def test_hidden_states_of_another_width_are_projected() -> None:
    where = scene("sentence-encoder", "bert")
    where.student.config.hidden_size = 20
    objective = make_objectives((Spec("hidden", {"layers": "all"}),), where)
    mine = Outputs(hidden=tuple(torch.randn(3, 7, 20) for _ in range(3)))
    theirs = Outputs(hidden=tuple(torch.randn(3, 7, 32) for _ in range(5)))
    loss = objective(mine, theirs, tokens())["loss"]
    loss.backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert [p.shape for p in objective.parameters()] == [(32, 20)]


@pytest.mark.parametrize(
    ("task", "family", "spec", "said"),
    [
        ("sentence-encoder", "bert", Spec("logits"), "no head.*embedding, similarity"),
        ("sentence-encoder", "bert", Spec("labels"), "no head"),
        ("causal-lm", "llama", Spec("embedding"), "no embeddings.*logits"),
        ("causal-lm", "llama", Spec("logit"), "there is no 'logit'"),
        ("causal-lm", "llama", Spec("logits", {"temperature": 0}), "more than 0"),
        ("causal-lm", "llama", Spec("logits", {"temprature": 2}), "did you mean 'temperature'"),
        ("causal-lm", "llama", Spec("relations", {"layer": 9}), "layers 0 to 3"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused(task: str, family: str, spec: Spec, said: str) -> None:
    with pytest.raises(CorecompressError, match=said):
        make_objectives((spec,), scene(task, family))
    with pytest.raises(CorecompressError, match="written twice"):
        make_objectives((Spec("hidden"), Spec("hidden", {"weight": 2.0})), scene(task, family))


def test_a_head_that_is_missing_is_said_before_training(tmp_path: Path, text: str) -> None:
    source = save(tmp_path / "bert", "bert")
    with pytest.raises(CorecompressError, match=r"objectives=\[logits\].*BertModel"):
        corecompress.compress(source, tmp_path / "out", "distill(layers=2, objectives=[logits])", data=text)
    assert not (tmp_path / "out").exists()
