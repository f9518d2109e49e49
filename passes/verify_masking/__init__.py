"""The oracle: proves by running it that a compressed model is its original with channels removed."""

from passes.verify_masking.check import VerifyMasking
from passes.verify_masking.comparison import FLOAT32, FLOAT64, Tolerance
from passes.verify_masking.plan import Plan, plan_of
from passes.verify_masking.proofs import Verdict
from passes.verify_masking.verify import Weights, verify

__all__ = ["FLOAT32", "FLOAT64", "Plan", "Tolerance", "Verdict", "VerifyMasking", "Weights", "plan_of", "verify"]
