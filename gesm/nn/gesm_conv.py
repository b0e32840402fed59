"""GESMConv: entity attention followed by a step mixture."""

from typing import Any

from torch import Tensor
from torch_geometric.nn import MessagePassing

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.nn._messages import message_passing_options, needs_messages
from gesm.nn.entity_attention import EntityAttention
from gesm.nn.step_mixture import StepMixture, of_mixture
from gesm.ops._checks import check_features, is_whole

__all__ = ["GESMConv"]


class GESMConv(MessagePassing):
    r"""The layer of the `"Graphs, Entities, and Step Mixture" <https://arxiv.org/abs/2005.08485>`_ paper.

    .. math::
        \mathbf{Y} = \sum_{k=0}^{K} \mathbf{P}^k \mathbf{H} \mathbf{B}_k + \mathbf{b}

    with :math:`\mathbf{H}` the output of :class:`gesm.nn.EntityAttention` and the sum a :class:`gesm.nn.StepMixture`, the
    attributes `attention` and `mixture`; hooks on messages belong on these.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive the size from the first input(s) to the forward
            method.
        hidden_channels (int): Width of H, per head.
        out_channels (int): Size of each output sample.
        K (int, optional): Number of steps. (default: :obj:`14`, the published Cora run)
        heads (int, optional): Number of attention heads. (default: :obj:`8`)
        dropout (float, optional): Dropout probability of H. (default: :obj:`0.0`)
        attention_dropout (float, optional): Dropout probability of the attention weights. (default: :obj:`0.0`)
        score (str, optional): :obj:`"product"` or :obj:`"additive"`. (default: :obj:`"product"`)
        residual (bool, optional): Whether attention adds its own input. (default: :obj:`True`)
        normalization (str, optional): Of P, :obj:`"col"`, :obj:`"row"` or :obj:`"sym"`. (default: :obj:`"col"`)
        add_self_loops (bool, optional): Whether to add self-loops. (default: :obj:`True`)
        bias (bool, optional): Whether to learn additive biases. (default: :obj:`True`)
        input_dropout (float, optional): Dropout probability of X. (default: :obj:`0.0`)
        **kwargs (optional): Additional arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, dense or torch.sparse CSR, adjacency in any form that
          :func:`gesm.as_graph` takes, edge weights :math:`(|\mathcal{E}|)`, `step_weight` as in :class:`gesm.nn.StepMixture`
          *(both optional)*
        - **output:** :math:`(|\mathcal{V}|, F_{out})`; with :obj:`return_attention_weights=True` also
          :math:`((2, |\mathcal{E}|), (|\mathcal{E}|, H))`; with :obj:`return_embedding=True` also
          :math:`\mathbf{Z} = \mathbf{X} \mathbf{W}`, :math:`(|\mathcal{V}|, H * F_{hidden})`
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        K: int = 14,
        heads: int = 8,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        score: str = "product",
        residual: bool = True,
        normalization: str = "col",
        add_self_loops: bool = True,
        bias: bool = True,
        input_dropout: float = 0.0,
        **kwargs: Any,
    ):
        kwargs = message_passing_options(kwargs)
        if not is_whole(in_channels):
            raise GesmError(
                f"in_channels must be an int, got {in_channels!r}: GESMConv walks K={K} steps on one set of nodes; use "
                "EntityAttention between two"
            )
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.heads = heads
        walk = {"normalization": normalization, "add_self_loops": add_self_loops, "bias": bias}
        attention = {"dropout": attention_dropout, "score": score, "residual": residual, "input_dropout": input_dropout}
        self.attention = EntityAttention(in_channels, hidden_channels, heads, **attention, **walk, **kwargs)
        self.mixture = StepMixture(heads * hidden_channels, out_channels, K, dropout=dropout, **walk, **kwargs)

    K = of_mixture("K", "Number of steps.")
    dropout = of_mixture("dropout", "Dropout probability of H.")

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        super().reset_parameters()
        self.attention.reset_parameters()
        self.mixture.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        *,
        return_attention_weights: bool = False,
        return_embedding: bool = False,
        step_weight: Tensor | None = None,
    ) -> Any:
        """Attention, then mixture; see the class for shapes."""
        if isinstance(x, (tuple, list)):  # to_hetero passes an edge type's two ends even where they are one
            if x[0] is not x[1]:
                raise GesmError(
                    f"GESMConv walks K={self.K} steps on one set of nodes, but got a bipartite pair of {x[0].size(0)} sources "
                    f"and {x[1].size(0)} targets; use EntityAttention for such edges"
                )
            x = x[0]
        check_features(x)
        if not (needs_messages(self.attention) or needs_messages(self.mixture)):
            edge_index, edge_weight = as_graph(edge_index, edge_weight, x.size(0)), None
        flags = {"return_attention_weights": return_attention_weights, "return_embedding": return_embedding}
        out = self.attention(x, edge_index, edge_weight, **flags)
        h, *extra = out if isinstance(out, tuple) else (out,)
        out = self.mixture(h, edge_index, edge_weight, step_weight=step_weight)
        return (out, *extra) if extra else out

    def __repr__(self) -> str:
        sizes = f"{self.in_channels}, {self.hidden_channels}, {self.out_channels}"
        return f"{self.__class__.__name__}({sizes}, K={self.K}, heads={self.heads})"
