"""The held-out functions of the random check: fixed before the numerics were tuned, none used to tune them.

One line each: `name | arguments | keywords | class`. An argument is `sizes domain`, where a domain is
`real` (normal), `positive` (exp of a normal), `lo..hi` (uniform), `spd` (symmetric positive definite), `regular`
(identity plus a small normal matrix), `lower` (lower triangular, diagonal near 1), `logprob` (log of a simplex, last
axis), `ints<k` (integers in [0, k), no gradient), `sign` (+-1, no gradient) or `const` (normal, no gradient). A random
scale multiplies `real` and `positive` arguments only, because the others have a domain to stay in. The class is
`smooth`, or `kinked` where a random input may lie near a kink. `seq` hands all arguments over as one list.
"""

from __future__ import annotations

TABLE = """
torch.asinh | 12 real | | smooth
torch.acosh | 12 1.1..5 | | smooth
torch.atanh | 12 -0.95..0.95 | | smooth
torch.atan | 12 real | | smooth
torch.atan2 | 12 real, 12 real | | smooth
torch.asin | 12 -0.95..0.95 | | smooth
torch.acos | 12 -0.95..0.95 | | smooth
torch.sinh | 12 -5..5 | | smooth
torch.cosh | 12 -5..5 | | smooth
torch.tan | 12 -1.3..1.3 | | smooth
torch.expm1 | 12 -5..5 | | smooth
torch.log1p | 12 positive | | smooth
torch.exp2 | 12 -8..8 | | smooth
torch.log2 | 12 positive | | smooth
torch.log10 | 12 positive | | smooth
torch.erf | 12 -3..3 | | smooth
torch.erfc | 12 -3..3 | | smooth
torch.erfinv | 12 -0.97..0.97 | | smooth
torch.lgamma | 12 0.2..20 | | smooth
torch.digamma | 12 0.2..20 | | smooth
torch.sigmoid | 12 -8..8 | | smooth
torch.logit | 12 0.02..0.98 | | smooth
torch.rsqrt | 12 positive | | smooth
torch.addcmul | 12 real, 12 real, 12 real | value=0.5 | smooth
torch.addcdiv | 12 real, 12 real, 12 positive | value=0.5 | smooth
torch.lerp | 12 real, 12 real, 12 0.1..0.9 | | smooth
torch.hypot | 12 real, 12 real | | smooth
torch.logaddexp | 12 -5..5, 12 -5..5 | | smooth
torch.logaddexp2 | 12 -5..5, 12 -5..5 | | smooth
torch.xlogy | 12 real, 12 positive | | smooth
torch.special.xlog1py | 12 real, 12 positive | | smooth
torch.pow | 12 0.2..4, 12 -2..2 | | smooth
torch.special.ndtr | 12 -4..4 | | smooth
torch.special.log_ndtr | 12 -6..4 | | smooth
torch.special.i0 | 12 -4..4 | | smooth
torch.special.i0e | 12 -4..4 | | smooth
torch.special.i1 | 12 -4..4 | | smooth
torch.special.i1e | 12 -4..4 | | smooth
torch.special.entr | 12 0.05..3 | | smooth
torch.special.erfcx | 12 -3..6 | | smooth
torch.logcumsumexp | 3x4 -5..5 | dim=1 | smooth
torch.cumsum | 3x4 real | dim=1 | smooth
torch.prod | 3x4 real | dim=1 | smooth
torch.var | 3x5 real | dim=1 | smooth
torch.std | 3x5 real | dim=1 | smooth
torch.dist | 8 real, 8 real | p=3.0 | smooth
torch.cdist | 4x3 real, 5x3 real | | smooth
torch.linalg.cross | 4x3 real, 4x3 real | | smooth
torch.kron | 2x3 real, 3x2 real | | smooth
torch.outer | 4 real, 5 real | | smooth
torch.trapezoid | 3x5 real | dim=1 | smooth
torch.cov | 3x6 real | | smooth
torch.addmm | 3x4 real, 3x2 real, 2x4 real | beta=0.5 | smooth
torch.baddbmm | 2x3x4 real, 2x3x2 real, 2x2x4 real | alpha=2.0 | smooth
torch.tensordot | 2x3x4 real, 4x3 real | dims=1 | smooth
torch.linalg.det | 4x4 regular | | smooth
torch.linalg.inv | 4x4 regular | | smooth
torch.linalg.solve | 4x4 regular, 4x2 real | | smooth
torch.linalg.cholesky | 4x4 spd | | smooth
torch.linalg.matrix_exp | 3x3 regular | | smooth
torch.linalg.pinv | 4x4 regular | | smooth
torch.linalg.svdvals | 4x3 real | | smooth
torch.linalg.matrix_norm | 4x3 real | | smooth
torch.linalg.vector_norm | 8 real | ord=3 | smooth
torch.linalg.multi_dot | 2x3 real, 3x4 real, 4x2 real | | smooth seq
torch.linalg.matrix_power | 3x3 regular | n=3 | smooth
torch.linalg.solve_triangular | 4x4 lower, 4x2 real | upper=False | smooth
torch.nn.functional.mish | 12 real | | smooth
torch.nn.functional.celu | 12 -3..3 | alpha=1.5 | kinked
torch.nn.functional.selu | 12 -3..3 | | kinked
torch.nn.functional.leaky_relu | 12 real | | kinked
torch.nn.functional.hardswish | 12 real | | kinked
torch.nn.functional.logsigmoid | 12 -8..8 | | smooth
torch.nn.functional.softsign | 12 real | | kinked
torch.nn.functional.tanhshrink | 12 -3..3 | | smooth
torch.nn.functional.glu | 3x6 real | | smooth
torch.nn.functional.softmin | 3x4 -4..4 | dim=1 | smooth
torch.nn.functional.group_norm | 2x4x3 real | num_groups=2 | smooth
torch.nn.functional.instance_norm | 2x3x5 real | | smooth
torch.nn.functional.local_response_norm | 2x5x3 -3..3 | size=3 | smooth
torch.nn.functional.normalize | 3x4 real | | smooth
torch.nn.functional.cosine_similarity | 3x4 real, 3x4 real | | smooth
torch.nn.functional.pairwise_distance | 3x4 real, 3x4 real | | smooth
torch.nn.functional.mse_loss | 12 real, 12 real | | smooth
torch.nn.functional.smooth_l1_loss | 12 real, 12 const | | kinked
torch.nn.functional.huber_loss | 12 real, 12 const | delta=0.7 | kinked
torch.nn.functional.l1_loss | 12 real, 12 const | | kinked
torch.nn.functional.kl_div | 3x4 logprob, 3x4 0.05..0.5 | reduction='batchmean' | smooth
torch.nn.functional.binary_cross_entropy | 12 0.05..0.95, 12 0.05..0.95 | | smooth
torch.nn.functional.binary_cross_entropy_with_logits | 12 -6..6, 12 0.05..0.95 | | smooth
torch.nn.functional.poisson_nll_loss | 12 -3..3, 12 positive | | smooth
torch.nn.functional.gaussian_nll_loss | 8 real, 8 real, 8 0.2..3 | | smooth
torch.nn.functional.soft_margin_loss | 12 -4..4, 12 sign | | smooth
torch.nn.functional.triplet_margin_loss | 3x4 real, 3x4 real, 3x4 real | | kinked
torch.nn.functional.multilabel_soft_margin_loss | 3x4 -4..4, 3x4 0.05..0.95 | | smooth
torch.nn.functional.nll_loss | 4x5 logprob, 4 ints<5 | | smooth
torch.nn.functional.linear | 3x4 real, 5x4 real, 5 real | | smooth
torch.nn.functional.bilinear | 3x4 real, 3x2 real, 2x4x2 real | | smooth
torch.nn.functional.conv1d | 1x2x6 real, 3x2x3 real, 3 real | padding=1 | smooth
torch.nn.functional.conv2d | 1x2x4x4 real, 2x2x3x3 real | padding=1, stride=2 | smooth
torch.nn.functional.conv_transpose2d | 1x2x3x3 real, 2x2x2x2 real | stride=2 | smooth
torch.nn.functional.avg_pool2d | 1x2x4x4 real | kernel_size=2 | smooth
torch.nn.functional.lp_pool2d | 1x2x4x4 positive | norm_type=3.0, kernel_size=2 | smooth
torch.nn.functional.max_pool2d | 1x2x4x4 real | kernel_size=2 | kinked
torch.nn.functional.interpolate | 1x2x3x3 real | size=(5, 5), mode='bicubic' | smooth
torch.nn.functional.grid_sample | 1x2x4x4 real, 1x3x3x2 -0.9..0.9 | align_corners=False | kinked
torch.nn.functional.pixel_shuffle | 1x4x2x3 real | upscale_factor=2 | smooth
torch.nn.functional.unfold | 1x2x4x4 real | kernel_size=2 | smooth
torch.nn.functional.prelu | 2x3x2 real, 3 real | | kinked
torch.nn.functional.hardtanh | 12 real | | kinked
"""
