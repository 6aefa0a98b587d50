"""Models of Hugging Face whose attention is replaced: what they answer, generate, learn and are saved as."""

import json
from dataclasses import asdict

import pytest
import torch

from learnsolve.linearize import (
    GATES,
    LigerOptions,
    LoRAOptions,
    linearize,
    load,
    next_token_accuracy,
    save,
    tune,
    windows,
)
from learnsolve.training import FitOptions
from tests.liger_cases import FAMILIES, converted, logits, offline, original, tokens_of

transformers = pytest.importorskip("transformers")
nothing_is_downloaded = pytest.fixture(offline, autouse=True)


def read(model, tokens, cache):
    from learnsolve.linearize.cache import as_argument

    return logits(model, tokens, use_cache=True, **as_argument(model, cache))


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_stay_as_they_are(family):
    before, after = original(family), converted(family)
    assert before.num_parameters() == after.num_parameters()
    found = after.state_dict()
    assert before.state_dict().keys() == found.keys()
    assert all(torch.equal(weight, found[name]) for name, weight in before.state_dict().items())
    assert {n for n, _ in before.named_parameters()} == {n for n, _ in after.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_of_all_alone_is_the_original(family):
    tokens = tokens_of(2, 20)
    found = logits(converted(family, window=20, share=0.0), tokens)
    torch.testing.assert_close(found, logits(original(family), tokens), rtol=1e-4, atol=1e-5)
    assert (logits(converted(family, window=5, share=0.0), tokens) - found).abs().max() > 0.1
    assert (logits(converted(family, window=20), tokens) - found).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gate", GATES)
def test_models_decode_as_at_once(family, gate):
    model, tokens = converted(family, gate), tokens_of(2, 14)
    whole = logits(model, tokens)
    cache, found = transformers.DynamicCache(), []
    for piece in tokens.split([6, 1, 1, 3, 1, 1, 1], 1):
        found.append(read(model, piece, cache))
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-4, atol=1e-5)
    assert cache.get_seq_length() == 14


@pytest.mark.parametrize("family", FAMILIES)
def test_models_generate(family):
    model, tokens = converted(family), tokens_of(2, 9)
    found = model.generate(tokens, max_new_tokens=8, do_sample=False)
    expected = tokens
    for _ in range(8):
        expected = torch.cat([expected, logits(model, expected)[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, expected)
    beams = model.generate(tokens, max_new_tokens=6, num_beams=3, do_sample=False)
    # Several beams are no worse than one.
    scores = []
    for one in (beams, found[:, :15]):
        chances = logits(model, one).log_softmax(-1)[:, 8:-1].gather(2, one[:, 9:, None])
        scores.append(chances.sum((1, 2)))
    assert beams.shape == (2, 15) and (scores[0] >= scores[1] - 1e-4).all()


def test_padded_prompts_generate_as_alone():
    model = converted()
    prompts = [tokens_of(1, n, seed=n) for n in (4, 9, 7)]
    padded = torch.cat([torch.nn.functional.pad(one, (9 - one.shape[1], 0)) for one in prompts])
    found = model.generate(padded, attention_mask=padded != 0, max_new_tokens=7, do_sample=False)
    for prompt, row in zip(prompts, found, strict=True):
        assert torch.equal(row[-7:], model.generate(prompt, max_new_tokens=7, do_sample=False)[0, -7:])


def test_memory_does_not_grow():
    from learnsolve.linearize.cache import cache_numbers

    model, tokens = converted(gate="gla", window=8), tokens_of(1, 16384)
    cache, found = transformers.DynamicCache(config=model.config), {}
    for begin in range(0, 16384, 1024):
        read(model, tokens[:, begin : begin + 1024], cache)
        stored = {
            one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
            for layer in cache.layers
            for one in (layer.state.keys, layer.state.values, *layer.state.recurrent)
        }
        found[begin + 1024] = cache_numbers(cache), sum(stored.values())
    # Seven keys and values, and a matrix, of each of two heads of four channels in each of two layers.
    numbers = 2 * 2 * (2 * 7 * 4 + 4 * 4)
    assert found[1024] == found[16384] == (numbers, 4 * numbers)


def test_caches_are_of_one_kind():
    tokens, plain, model = tokens_of(1, 6), original(), converted()
    cache = transformers.DynamicCache()
    read(plain, tokens, cache)
    with pytest.raises(ValueError, match="DynamicLayer with 6 tokens"):
        read(model, tokens, cache)
    with pytest.raises(ValueError, match="StaticLayer"):
        read(model, tokens, transformers.StaticCache(config=plain.config, max_cache_len=9))
    cache = transformers.DynamicCache()
    read(model, tokens, cache)
    with pytest.raises(TypeError, match="takes no keys"):
        read(plain, tokens, cache)
    with pytest.raises(ValueError, match="does not go back"):
        cache.crop(-1)
    first = read(model, tokens, cache)
    cache.reset()
    assert cache.get_seq_length() == 0
    again = read(model, tokens, cache)
    assert not torch.allclose(first, again) and torch.allclose(again, logits(model, tokens), atol=1e-5)


def test_caches_change_their_batch():
    model, tokens = converted(), tokens_of(3, 6)
    cache = transformers.DynamicCache()
    read(model, tokens, cache)
    cache.batch_select_indices(torch.tensor([2, 0]))
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([3, 0]))
    ends = tokens_of(2, 1, seed=9)
    found = read(model, ends, cache)
    torch.testing.assert_close(
        found, logits(model, torch.cat([tokens[[0, 2]], ends], 1))[:, -1:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_models_come_back_from_files(family, tmp_path):
    model, tokens = converted(family, "hgrn2", window=3, share=0.25), tokens_of(1, 9)
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "tokenizer.json").write_text("{}")
    save(tmp_path / "new" / "model", model, tokenizer=tmp_path / "original")
    names = {path.name for path in (tmp_path / "new" / "model").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names and not any(
        "bin" in one for one in names
    )
    again = load(tmp_path / "new" / "model")
    assert again.config.liger == asdict(LigerOptions("hgrn2", 3, 0.25))
    assert torch.equal(logits(again, tokens), logits(model, tokens))
    assert torch.equal(again.generate(tokens, max_new_tokens=5), model.generate(tokens, max_new_tokens=5))
    with pytest.raises(FileExistsError, match="there already"):
        save(tmp_path / "new" / "model", model)
    with pytest.raises(ValueError, match="converted already"):
        linearize(again)


def test_files_that_are_refused(tmp_path):
    from learnsolve.linearize.files import read_original

    model = converted()
    folder = tmp_path / "model"
    save(folder, model)
    with pytest.raises(ValueError, match="an original is accepted"):
        read_original(folder)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(tmp_path / "none")
    config = json.loads((folder / "config.json").read_text())
    for changes, words in (
        ({"liger": None}, "liger of its config is None"),
        ({"liger": {"gate": "gla"}}, "gate, share, window are accepted"),
        ({"liger": {"gate": "none", "window": 3, "share": 0.5}}, "gate is 'none'"),
        ({"liger": {"gate": "gla", "window": 3, "share": 2}}, "share is 2"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ValueError, match=words):
            load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="no safetensors"):
        load(folder)
    with pytest.raises(ValueError, match="was not converted"):
        save(tmp_path / "other", original())
    assert not (tmp_path / "other").exists()


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    model = converted()

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path / "model", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: linearize(torch.nn.Linear(2, 2)), "is a Linear; a causal one of llama"),
        (lambda: linearize(original().model), "is a llama; a causal one"),
        (lambda: tune(original(), windows(torch.arange(5), 1, 3), FitOptions(1)), "was not converted"),
        (lambda: logits(converted(), tokens_of(1, 4), attention_mask=torch.ones(1, 1, 4, 4)), "of tokens"),
    ],
)  # fmt: skip
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_tuning_changes_what_it_should():
    pytest.importorskip("peft")
    model = converted(gate="gla")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    count = model.num_parameters()
    text = torch.arange(400) * torch.arange(400) % 23
    options = FitOptions(40, learning_rate=1e-2, optimizer="adamw", schedule="constant", seed=3)
    batches = windows(text, 8, 16)
    tuned, result = tune(model, batches, options)
    after = tuned.state_dict()
    assert tuned.num_parameters() == count and after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if any(f"{p}_proj" in name for p in "qkv")}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4) <= 8
    assert result.finished and result.loss < result.history[0]["loss"] + 1e-9
    tokens, targets = batches(0, torch.Generator().manual_seed(0))
    assert next_token_accuracy(tuned, tokens, targets) > next_token_accuracy(converted(), tokens, targets)
    # The same again, bit by bit, and an output that is tuned too.
    again, _ = tune(converted(), batches, options)
    assert all(torch.equal(weight, after[name]) for name, weight in again.state_dict().items())
    more, _ = tune(converted(), batches, FitOptions(2, learning_rate=1e-2), LoRAOptions(2, 4, output=True))
    assert not torch.equal(
        more.model.layers[0].self_attn.o_proj.weight, before["model.layers.0.self_attn.o_proj.weight"]
    )


def test_accuracy_is_a_share_of_places():
    class Next(torch.nn.Module):
        """Holds one more for likeliest."""

        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, use_cache):
            assert not use_cache
            hot = torch.nn.functional.one_hot((input_ids + 1) % 5, 5)
            return type("Output", (), {"logits": hot.float()})

    tokens = torch.tensor([[0, 1, 2, 3], [4, 0, 1, 1]])
    targets = torch.tensor([[1, 2, 3, 4], [0, 1, 1, 1]])
    assert next_token_accuracy(Next(), tokens, targets, chunk=1) == 6 / 8
    assert next_token_accuracy(Next(), tokens, targets, begin=2) == 2 / 4
    targets[0, 2:] = -100
    assert next_token_accuracy(Next(), tokens, targets) == 4 / 6
