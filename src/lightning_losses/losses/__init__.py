# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every loss class, by family; each is one small file, its YAML in ``conf/loss``."""

from lightning_losses.losses.classification.binary_cross_entropy import BinaryCrossEntropy
from lightning_losses.losses.classification.binary_focal import BinaryFocal
from lightning_losses.losses.classification.brier import Brier
from lightning_losses.losses.classification.comp_sum import CompSum
from lightning_losses.losses.classification.cross_entropy import CrossEntropy
from lightning_losses.losses.classification.ensloss import EnsLoss
from lightning_losses.losses.classification.entropy_bonus import EntropyBonus
from lightning_losses.losses.classification.focal import Focal
from lightning_losses.losses.classification.logsumexp_penalty import LogsumexpPenalty
from lightning_losses.losses.classification.multiclass_hinge import MulticlassHinge
from lightning_losses.losses.classification.opl import OrthogonalProjection
from lightning_losses.losses.classification.smooth_adversarial import SmoothAdversarial
from lightning_losses.losses.classification.spherical_family import SphericalSoftmax, TaylorSoftmax
from lightning_losses.losses.classification.spherical_z import SphericalZ
from lightning_losses.losses.classification.stablemax import StableMax
from lightning_losses.losses.distillation.kd import KnowledgeDistillation
from lightning_losses.losses.imbalance.anyloss import AnyLoss
from lightning_losses.losses.imbalance.class_balanced import ClassBalanced
from lightning_losses.losses.imbalance.dice import Dice
from lightning_losses.losses.imbalance.logit_adjustment import LogitAdjustment
from lightning_losses.losses.metric.multi_similarity import MultiSimilarity
from lightning_losses.losses.ordinal.c51 import CategoricalTD
from lightning_losses.losses.ordinal.coral import Coral
from lightning_losses.losses.ordinal.corn import Corn
from lightning_losses.losses.ordinal.ordinal_nll import OrdinalNLL
from lightning_losses.losses.ordinal.pinball import Pinball
from lightning_losses.losses.ordinal.pseudo_huber import PseudoHuber
from lightning_losses.losses.robust.aldr_kl import AdaptiveLDRKL
from lightning_losses.losses.robust.asymmetric import AsymmetricGCE, AsymmetricUnhinged
from lightning_losses.losses.robust.bootstrapping import Bootstrapping
from lightning_losses.losses.robust.jensen_shannon import JensenShannon
from lightning_losses.losses.robust.ldr_kl import LDRKL
from lightning_losses.losses.robust.mart import Mart
from lightning_losses.losses.robust.normalized import NormalizedCompSum
from lightning_losses.losses.robust.rll import RobustLogLoss
from lightning_losses.losses.robust.symmetric_ce import SymmetricCrossEntropy
from lightning_losses.losses.robust.trades import Trades
from lightning_losses.losses.robust.truncated_gce import TruncatedGCE
from lightning_losses.losses.robust.weat import Weat
from lightning_losses.losses.segmentation.dice_ce import DiceCE
from lightning_losses.losses.segmentation.region_wise import RegionWise
from lightning_losses.losses.segmentation.skeleton_recall import SkeletonRecall
from lightning_losses.losses.segmentation.soft_cldice import SoftClDice
from lightning_losses.losses.segmentation.tversky import Tversky
from lightning_losses.losses.structured.aggregate_responses import AggregateResponses
from lightning_losses.losses.structured.cauchy_schwarz import (
    CSDivergence,
    CSMutualInformation,
    KdeKL,
)
from lightning_losses.losses.structured.distance_covariance import DistanceCovariance
from lightning_losses.losses.structured.llp_proportion import LabelProportion
from lightning_losses.losses.structured.profit_aware_bce import ProfitAwareBCE
from lightning_losses.losses.structured.tri_bce import TriBCE

__all__ = [
    "LDRKL",
    "AdaptiveLDRKL",
    "AggregateResponses",
    "AnyLoss",
    "AsymmetricGCE",
    "AsymmetricUnhinged",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "Bootstrapping",
    "Brier",
    "CSDivergence",
    "CSMutualInformation",
    "CategoricalTD",
    "ClassBalanced",
    "CompSum",
    "Coral",
    "Corn",
    "CrossEntropy",
    "Dice",
    "DiceCE",
    "DistanceCovariance",
    "EnsLoss",
    "EntropyBonus",
    "Focal",
    "JensenShannon",
    "KdeKL",
    "KnowledgeDistillation",
    "LabelProportion",
    "LogitAdjustment",
    "LogsumexpPenalty",
    "Mart",
    "MultiSimilarity",
    "MulticlassHinge",
    "NormalizedCompSum",
    "OrdinalNLL",
    "OrthogonalProjection",
    "Pinball",
    "ProfitAwareBCE",
    "PseudoHuber",
    "RegionWise",
    "RobustLogLoss",
    "SkeletonRecall",
    "SmoothAdversarial",
    "SoftClDice",
    "SphericalSoftmax",
    "SphericalZ",
    "StableMax",
    "SymmetricCrossEntropy",
    "TaylorSoftmax",
    "Trades",
    "TriBCE",
    "TruncatedGCE",
    "Tversky",
    "Weat",
]
