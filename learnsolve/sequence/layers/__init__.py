"""Layers that mix the tokens of a sequence: ``y, state = layer(x, state)``, in parallel or one by one."""

from learnsolve.sequence.layers.attention import Attention
from learnsolve.sequence.layers.delta_net import DeltaNet
from learnsolve.sequence.layers.gated_linear_attention import GatedLinearAttention
from learnsolve.sequence.layers.light_net import LightNet
from learnsolve.sequence.layers.linear_attention import LinearAttention
from learnsolve.sequence.layers.linformer import Linformer
from learnsolve.sequence.layers.longformer import Longformer
from learnsolve.sequence.layers.lssl import LSSL
from learnsolve.sequence.layers.lstm import LSTM
from learnsolve.sequence.layers.mega import Mega
from learnsolve.sequence.layers.mixture_of_memories import MixtureOfMemories
from learnsolve.sequence.layers.performer import Performer
from learnsolve.sequence.layers.reformer import Reformer
from learnsolve.sequence.layers.seq_boat import SeqBoat
from learnsolve.sequence.layers.tcnca import TCNCA

__all__ = [
    "LSSL",
    "LSTM",
    "TCNCA",
    "Attention",
    "DeltaNet",
    "GatedLinearAttention",
    "LightNet",
    "LinearAttention",
    "Linformer",
    "Longformer",
    "Mega",
    "MixtureOfMemories",
    "Performer",
    "Reformer",
    "SeqBoat",
]
