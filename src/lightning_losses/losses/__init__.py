# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every loss class, by family; each is one small file, its YAML in ``conf/loss``."""

from lightning_losses.losses.adaptation.dual_view_kl import DualViewKL
from lightning_losses.losses.adaptation.entropy_min import EntropyMinimization
from lightning_losses.losses.adaptation.entropy_with_prior import EntropyWithPrior
from lightning_losses.losses.adaptation.local_entropy import LocalEntropy
from lightning_losses.losses.adaptation.marginal_entropy import MarginalEntropy
from lightning_losses.losses.adaptation.soft_entropy import SoftEntropy
from lightning_losses.losses.adaptation.soft_likelihood_ratio import SoftLikelihoodRatio
from lightning_losses.losses.adaptation.teacher_sce import TeacherSymmetricCE
from lightning_losses.losses.calibration.avuc import AvUC, SoftAvUC
from lightning_losses.losses.calibration.correctness_aware import CorrectnessAware
from lightning_losses.losses.calibration.dca import DCA
from lightning_losses.losses.calibration.dual_focal import DualFocal
from lightning_losses.losses.calibration.edl import Evidential
from lightning_losses.losses.calibration.mdca import MDCA
from lightning_losses.losses.calibration.mmce import MMCE
from lightning_losses.losses.calibration.soft_binned_ece import SoftBinnedECE, SoftLabelBinnedECE
from lightning_losses.losses.classification.binary_cross_entropy import BinaryCrossEntropy
from lightning_losses.losses.classification.binary_focal import BinaryFocal
from lightning_losses.losses.classification.brier import Brier
from lightning_losses.losses.classification.comp_sum import CompSum
from lightning_losses.losses.classification.cross_entropy import CrossEntropy
from lightning_losses.losses.classification.ensloss import EnsLoss
from lightning_losses.losses.classification.entropy_bonus import EntropyBonus
from lightning_losses.losses.classification.focal import Focal
from lightning_losses.losses.classification.logsumexp_penalty import LogsumexpPenalty
from lightning_losses.losses.classification.margin_control import MarginControl
from lightning_losses.losses.classification.multiclass_hinge import MulticlassHinge
from lightning_losses.losses.classification.opl import OrthogonalProjection
from lightning_losses.losses.classification.smooth_adversarial import SmoothAdversarial
from lightning_losses.losses.classification.spherical_family import SphericalSoftmax, TaylorSoftmax
from lightning_losses.losses.classification.spherical_z import SphericalZ
from lightning_losses.losses.classification.stablemax import StableMax
from lightning_losses.losses.combinatorial.inter_variable_contrastive import (
    InterVariableContrastive,
)
from lightning_losses.losses.contrastive.barlow_twins import BarlowTwins
from lightning_losses.losses.contrastive.clip import CLIP, SigLIP
from lightning_losses.losses.contrastive.clusters import PrototypicalContrastive, WeightedInfoNCE
from lightning_losses.losses.contrastive.hyperbolic import HyperbolicContrastive, PairwiseConfusion
from lightning_losses.losses.contrastive.nt_xent import NTXent
from lightning_losses.losses.contrastive.supcon import SupCon
from lightning_losses.losses.density.compositional_nll import CompositionalNLL
from lightning_losses.losses.density.marginalization import MarginalizationConsistency
from lightning_losses.losses.density.noise_contrastive import NoiseContrastive
from lightning_losses.losses.discovery.partly_labelled import LabelledCrossEntropy
from lightning_losses.losses.discovery.two_views import SelfDistillation
from lightning_losses.losses.distillation.adaptive_alpha import AdaptiveAlphaDivergence
from lightning_losses.losses.distillation.binary_kl import BinaryKLDistillation
from lightning_losses.losses.distillation.dark_experience import DarkExperience
from lightning_losses.losses.distillation.dist import Dist
from lightning_losses.losses.distillation.distilled_ce import DistilledCrossEntropy
from lightning_losses.losses.distillation.dkd import DecoupledKD
from lightning_losses.losses.distillation.f_divergence import FDivergence
from lightning_losses.losses.distillation.group_progressive import GroupProgressive
from lightning_losses.losses.distillation.kd import KnowledgeDistillation
from lightning_losses.losses.distillation.pld import PlackettLuceDistillation
from lightning_losses.losses.imbalance.anyloss import AnyLoss
from lightning_losses.losses.imbalance.class_balanced import ClassBalanced
from lightning_losses.losses.imbalance.dice import Dice
from lightning_losses.losses.imbalance.logit_adjustment import LogitAdjustment
from lightning_losses.losses.imbalance.multiclass_mcc import MulticlassMCC
from lightning_losses.losses.information.cauchy_schwarz import (
    CSDivergence,
    CSMutualInformation,
    KdeKL,
)
from lightning_losses.losses.information.distance_covariance import DistanceCovariance
from lightning_losses.losses.language.dco import DirectCoverage
from lightning_losses.losses.language.emo import EarthMover
from lightning_losses.losses.language.flat import FLAT
from lightning_losses.losses.language.unlearning import AdaptiveUnlearning
from lightning_losses.losses.metric.circle import Circle
from lightning_losses.losses.metric.class_centers import (
    AdaptiveMarginSoftmax,
    MarginCalibration,
    ProtoTriplet,
    UnifiedNegativePairs,
)
from lightning_losses.losses.metric.contrastive import Contrastive
from lightning_losses.losses.metric.icnn import ICNN
from lightning_losses.losses.metric.metric_mixup import MetricMixup
from lightning_losses.losses.metric.multi_similarity import MultiSimilarity
from lightning_losses.losses.metric.triplet_margin import TripletMargin
from lightning_losses.losses.ordinal.c51 import CategoricalTD
from lightning_losses.losses.ordinal.coral import Coral
from lightning_losses.losses.ordinal.corn import Corn
from lightning_losses.losses.ordinal.ordinal_nll import OrdinalNLL
from lightning_losses.losses.ordinal.pinball import Pinball
from lightning_losses.losses.ordinal.pseudo_huber import PseudoHuber
from lightning_losses.losses.ordinal.squared_error import SquaredError
from lightning_losses.losses.policy.cispo import CISPO
from lightning_losses.losses.policy.clip_cov import ClipCov
from lightning_losses.losses.policy.dpo import DPO
from lightning_losses.losses.policy.gspo import GSPO
from lightning_losses.losses.policy.hapo import HAPO
from lightning_losses.losses.policy.kl_cov import KLCov
from lightning_losses.losses.policy.kl_estimator import KLEstimator
from lightning_losses.losses.policy.pacs import PACS
from lightning_losses.losses.policy.ppo_clip import PPOClip
from lightning_losses.losses.policy.reinforce import Reinforce
from lightning_losses.losses.policy.sparse_po import SparsePO
from lightning_losses.losses.policy.uncertainty_reward import UncertaintyReward
from lightning_losses.losses.recommender.ips_bce import IPSBinaryCrossEntropy
from lightning_losses.losses.recommender.kernel_balancing import KernelBalancing
from lightning_losses.losses.recommender.personal_loss import PersonalLoss
from lightning_losses.losses.recommender.profit_aware_bce import ProfitAwareBCE
from lightning_losses.losses.recommender.tri_bce import TriBCE
from lightning_losses.losses.regression.elementwise import ElementwiseError
from lightning_losses.losses.regression.gaussian_nll import GaussianNLL
from lightning_losses.losses.regression.split_point import SplitPoint
from lightning_losses.losses.retrieval.mann_whitney import MannWhitney
from lightning_losses.losses.retrieval.multilabel_softmax import MultilabelSoftmax
from lightning_losses.losses.retrieval.soft_topk import SoftTopK
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
from lightning_losses.losses.segmentation.background_aware_ce import BackgroundAwareCE
from lightning_losses.losses.segmentation.dice_ce import DiceCE
from lightning_losses.losses.segmentation.energy_distance import EnergyDistance
from lightning_losses.losses.segmentation.region_wise import RegionWise
from lightning_losses.losses.segmentation.sinkhorn import SinkhornDivergence
from lightning_losses.losses.segmentation.skeleton_recall import SkeletonRecall
from lightning_losses.losses.segmentation.soft_cldice import SoftClDice
from lightning_losses.losses.segmentation.tversky import Tversky
from lightning_losses.losses.weak_labels.aggregate_responses import AggregateResponses
from lightning_losses.losses.weak_labels.concept_bottleneck import ConceptBottleneckGumbel
from lightning_losses.losses.weak_labels.llp_proportion import LabelProportion

__all__ = [
    "CISPO",
    "CLIP",
    "DCA",
    "DPO",
    "FLAT",
    "GSPO",
    "HAPO",
    "ICNN",
    "LDRKL",
    "MDCA",
    "MMCE",
    "PACS",
    "AdaptiveAlphaDivergence",
    "AdaptiveLDRKL",
    "AdaptiveMarginSoftmax",
    "AdaptiveUnlearning",
    "AggregateResponses",
    "AnyLoss",
    "AsymmetricGCE",
    "AsymmetricUnhinged",
    "AvUC",
    "BackgroundAwareCE",
    "BarlowTwins",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "BinaryKLDistillation",
    "Bootstrapping",
    "Brier",
    "CSDivergence",
    "CSMutualInformation",
    "CategoricalTD",
    "Circle",
    "ClassBalanced",
    "ClipCov",
    "CompSum",
    "CompositionalNLL",
    "ConceptBottleneckGumbel",
    "Contrastive",
    "Coral",
    "Corn",
    "CorrectnessAware",
    "CrossEntropy",
    "DarkExperience",
    "DecoupledKD",
    "Dice",
    "DiceCE",
    "DirectCoverage",
    "Dist",
    "DistanceCovariance",
    "DistilledCrossEntropy",
    "DualFocal",
    "DualViewKL",
    "EarthMover",
    "ElementwiseError",
    "EnergyDistance",
    "EnsLoss",
    "EntropyBonus",
    "EntropyMinimization",
    "EntropyWithPrior",
    "Evidential",
    "FDivergence",
    "Focal",
    "GaussianNLL",
    "GroupProgressive",
    "HyperbolicContrastive",
    "IPSBinaryCrossEntropy",
    "InterVariableContrastive",
    "JensenShannon",
    "KLCov",
    "KLEstimator",
    "KdeKL",
    "KernelBalancing",
    "KnowledgeDistillation",
    "LabelProportion",
    "LabelledCrossEntropy",
    "LocalEntropy",
    "LogitAdjustment",
    "LogsumexpPenalty",
    "MannWhitney",
    "MarginCalibration",
    "MarginControl",
    "MarginalEntropy",
    "MarginalizationConsistency",
    "Mart",
    "MetricMixup",
    "MultiSimilarity",
    "MulticlassHinge",
    "MulticlassMCC",
    "MultilabelSoftmax",
    "NTXent",
    "NoiseContrastive",
    "NormalizedCompSum",
    "OrdinalNLL",
    "OrthogonalProjection",
    "PPOClip",
    "PairwiseConfusion",
    "PersonalLoss",
    "Pinball",
    "PlackettLuceDistillation",
    "ProfitAwareBCE",
    "ProtoTriplet",
    "PrototypicalContrastive",
    "PseudoHuber",
    "RegionWise",
    "Reinforce",
    "RobustLogLoss",
    "SelfDistillation",
    "SigLIP",
    "SinkhornDivergence",
    "SkeletonRecall",
    "SmoothAdversarial",
    "SoftAvUC",
    "SoftBinnedECE",
    "SoftClDice",
    "SoftEntropy",
    "SoftLabelBinnedECE",
    "SoftLikelihoodRatio",
    "SoftTopK",
    "SparsePO",
    "SphericalSoftmax",
    "SphericalZ",
    "SplitPoint",
    "SquaredError",
    "StableMax",
    "SupCon",
    "SymmetricCrossEntropy",
    "TaylorSoftmax",
    "TeacherSymmetricCE",
    "Trades",
    "TriBCE",
    "TripletMargin",
    "TruncatedGCE",
    "Tversky",
    "UncertaintyReward",
    "UnifiedNegativePairs",
    "Weat",
    "WeightedInfoNCE",
]
