"""Magnetic resonance imaging: from undersampled k-space to images."""

from learnsolve.mri.classical import cg_sense, l1_wavelet, total_variation, zero_filled
from learnsolve.mri.coils import (
    acs_region,
    compress,
    images_of,
    low_resolution_maps,
    rss,
    walsh,
    whiten,
)
from learnsolve.mri.direct_weights import from_direct, load_direct
from learnsolve.mri.espirit import Maps, espirit
from learnsolve.mri.held_out import held_out_error
from learnsolve.mri.learned import recurrentvarnet
from learnsolve.mri.masks import Sampling, factor, sampled_of
from learnsolve.mri.metrics import foreground, interval, measures, nmse, psnr, ssim
from learnsolve.mri.model import noise_level
from learnsolve.mri.reconstruct import reconstruct
from learnsolve.mri.recurrent_varnet import RecurrentVarNet, RecurrentVarNetOptions

__all__ = [
    "Maps",
    "RecurrentVarNet",
    "RecurrentVarNetOptions",
    "Sampling",
    "acs_region",
    "cg_sense",
    "compress",
    "espirit",
    "factor",
    "foreground",
    "from_direct",
    "held_out_error",
    "images_of",
    "interval",
    "l1_wavelet",
    "load_direct",
    "low_resolution_maps",
    "measures",
    "nmse",
    "noise_level",
    "psnr",
    "reconstruct",
    "recurrentvarnet",
    "rss",
    "sampled_of",
    "ssim",
    "total_variation",
    "walsh",
    "whiten",
    "zero_filled",
]
