"""Twenty functions of `torch.nn.functional` that must pass without a false alarm: `name | arguments | keywords | class`.

The grammar is that of `fresh_functions`.
"""

from __future__ import annotations

TABLE = """
torch.nn.functional.relu6 | 12 real | | kinked
torch.nn.functional.elu | 12 real | alpha=0.8 | kinked
torch.nn.functional.silu | 12 real | | smooth
torch.nn.functional.gelu | 12 real | approximate='tanh' | smooth
torch.nn.functional.softplus | 12 real | beta=2.0 | smooth
torch.nn.functional.hardshrink | 12 real | lambd=0.4 | kinked
torch.nn.functional.softshrink | 12 real | lambd=0.4 | kinked
torch.nn.functional.hardsigmoid | 12 real | | kinked
torch.nn.functional.log_softmax | 3x5 real | dim=1 | smooth
torch.nn.functional.softmax | 3x5 real | dim=0 | smooth
torch.nn.functional.layer_norm | 3x5 real | normalized_shape=(5,) | smooth
torch.nn.functional.batch_norm | 4x3 real, 3 const, 3 vars, 3 real, 3 real | training=True | smooth
torch.nn.functional.cross_entropy | 4x5 real, 4 ints<5 | label_smoothing=0.1 | smooth
torch.nn.functional.cosine_embedding_loss | 3x4 real, 3x4 real, 3 sign | margin=0.2 | kinked
torch.nn.functional.margin_ranking_loss | 12 real, 12 real, 12 sign | margin=0.3 | kinked
torch.nn.functional.multi_margin_loss | 4x5 real, 4 ints<5 | | kinked
torch.nn.functional.conv3d | 1x2x3x3x3 real, 2x2x2x2x2 real | | smooth
torch.nn.functional.adaptive_avg_pool2d | 1x2x5x4 real | output_size=(2, 3) | smooth
torch.nn.functional.fold | 1x8x9 real | output_size=(4, 4), kernel_size=2 | smooth
torch.nn.functional.scaled_dot_product_attention | 2x3x4 real, 2x5x4 real, 2x5x4 real | | smooth
"""
