"""Converted models in folders: safetensors, and a config that says what they were converted to."""

import json
import os
import secrets
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from learnsolve.linearize.attention import LigerOptions
from learnsolve.linearize.convert import FAMILIES, KEY, linearize

# What tokenizers are kept in.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def read_original(folder: str | os.PathLike) -> nn.Module:
    """A causal language model that Hugging Face's ``save_pretrained`` wrote, from safetensors only.

    Nothing is downloaded, and no code of the folder is run.

    Parameters
    ----------
    folder : str or os.PathLike

    Returns
    -------
    transformers.PreTrainedModel
        In evaluation mode, in the dtype of the file.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no config in it, or no safetensors.
    ValueError
        The config is none, of another family, or that of a converted model.
    ModuleNotFoundError
        transformers is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from learnsolve.linearize.files import read_original
    >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> folder = tempfile.mkdtemp()
    >>> LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes)).save_pretrained(folder)
    >>> read_original(folder).num_parameters()
    552
    """
    if KEY in _config(folder):
        raise ValueError(f"{os.fspath(folder)} holds a converted model; an original is accepted")
    return _model(folder)


def load(folder: str | os.PathLike) -> nn.Module:
    """The converted model of a folder that `save` wrote.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError
        As by `read_original`.
    ValueError
        The config is none, of another family, or does not say what the model was converted to.

    Examples
    --------
    See `save`.
    """
    about = _config(folder).get(KEY)
    names = {field.name for field in fields(LigerOptions)}
    if not isinstance(about, dict) or about.keys() != names:
        raise ValueError(
            f"{os.fspath(folder)}: {KEY} of its config is {about!r}; {', '.join(sorted(names))} are accepted"
        )
    options = LigerOptions(**about)
    return linearize(_model(folder), options)


def save(folder: str | os.PathLike, model: nn.Module, *, tokenizer: str | os.PathLike | None = None) -> None:
    """Write a converted model: model.safetensors and config.json, all of it or nothing.

    Parameters
    ----------
    folder : str or os.PathLike
        A new one, or an empty one.
    model : transformers.PreTrainedModel
        Converted by `linearize`, without adapters.
    tokenizer : str or os.PathLike, optional
        A folder whose tokenizer's files are copied, as far as there are any.

    Raises
    ------
    ValueError
        The model was not converted, or has adapters.
    FileExistsError
        There is something in the folder, or it is none.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from learnsolve.linearize import LigerOptions, linearize, load, save
    >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> model = linearize(LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes)), LigerOptions(window=3))
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "converted"
    >>> save(folder, model)
    >>> load(folder).config.liger
    {'gate': 'gla', 'window': 3, 'share': 0.5}
    """
    path, known = Path(folder), model
    converted: Any = known
    if not hasattr(getattr(converted, "config", None), KEY) or hasattr(converted, "peft_config"):
        raise ValueError(
            f"the {type(model).__name__} was not converted, or has adapters; one of linearize or tune is "
            "accepted"
        )
    from safetensors import SafetensorError

    check_new(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        try:
            converted.save_pretrained(part)
        except SafetensorError as error:
            raise OSError(f"{folder} could not be written: {error}") from None
        if tokenizer is not None:
            for name in TOKENIZER:
                if (Path(tokenizer) / name).is_file():
                    shutil.copyfile(Path(tokenizer) / name, part / name)
        if path.exists():
            path.rmdir()
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Nothing may be there.

    Raises
    ------
    FileExistsError
        Something is.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from learnsolve.linearize.files import check_new
    >>> check_new(pathlib.Path(tempfile.mkdtemp()))
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already, and not empty; a new folder is accepted")


def _config(folder: str | os.PathLike) -> dict[str, Any]:
    path = Path(folder) / "config.json"
    # A name that is no folder would be looked for in the hub.
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; a folder that save_pretrained wrote is accepted")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    family = found.get("model_type") if isinstance(found, dict) else None
    if family not in FAMILIES:
        raise ValueError(f"{path}: model_type is {family!r}; {', '.join(FAMILIES)} are accepted")
    return found


def _model(folder: str | os.PathLike) -> nn.Module:
    if not any(Path(folder).glob("*.safetensors")):
        raise FileNotFoundError(
            f"{os.fspath(folder)} has no safetensors; weights in other files are not read"
        )
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        Path(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype="auto"
    )
    return model.eval()
