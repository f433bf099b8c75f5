"""Where linear networks end: at global minima, or at which saddles (the conjecture of paper B)."""

from gdstab.studies import run as run
from gdstab.studies.options.base import RunOptions, SeedOptions, study_options


@study_options
class Overfitting(RunOptions, SeedOptions):
    """Where do gradient flow and descent of deep linear networks end: at a global minimum, or at which saddle?"""

    hidden_layers: tuple[int, ...] = (1, 2)
    """numbers of hidden layers, one network for each"""
    inputs: int = 4
    """input width"""
    hidden: int = 3
    """width of every hidden layer"""
    outputs: int = 3
    """output width"""
    datasets: int = 4
    """random targets; inputs are whitened"""
    starts: int = 100_000
    """random starts of descent for each number of hidden layers, shared among the targets"""
    flow_starts: int = 600
    """the same for gradient flow"""
    spread: float = 0.5
    """standard deviation of the entries of a random start"""
    step_share: float = 0.2
    """the step size of descent as a share of the critical one"""
    special_starts: int = 60
    """starts in each set that leads to saddles"""
    nudge: float = 1e-3
    """how far from these sets they are started once more"""
    lingering_spreads: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    """standard deviations of the starts whose time near saddles is taken"""
    lingering_starts: int = 40
    """orbits of gradient flow for each of them, for each target and number of hidden layers"""
    band: float = 0.1
    """near a saddle is a loss within this share of the distance to the next critical value"""
    time: float = 20_000.0
    """how long gradient flow runs at the most"""
    loss_tol: float = 1e-12
    """descent has come to a global minimum when the loss is this close to its infimum"""
    grad_tol: float = 1e-9
    """descent has come to a critical point when the norm of the gradient is at most this"""
    flow_tol: float = 1e-10
    """the tolerance of the loss for gradient flow; its square root is that of the gradient, divided by 100"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
    max_steps: int = 200_000
    """updates of descent at the most"""
