"""Every tolerance of the package is listed here, with what it is relative to and the tests that hold it at its ends.

What is compared with an epsilon, or with a fixed small number, is found in the source; the defaults of arguments and
of fields are not, since those are options of whoever calls. A number that is new, or gone, fails the first test: its
row says what the number scales with, and names tests of both ends of its range. Rows that begin with "no tolerance"
are of numbers that decide no answer: how finely a search or a solver works, what is drawn or printed, what is spent.
"""

import ast
import re
from pathlib import Path

import gdstab

ROOT, HERE = Path(gdstab.__file__).parent, Path(__file__).parent
MEASURES = {"finfo", "rounding", "rank_tolerance", "identity_tolerance", "tolerance"}
ELSEWHERE = {"claims", "figures", "cli"}  # they draw, print, and check what others have computed

ROWS = """
_numerics 5: the measures themselves: root, 2/3 and 3/4 power of epsilon; rounding min(n, 8 root n) epsilon of n entries
  test_rounding::test_many_samples_have_the_rank_they_have test_rounding::test_almost_white_data_are_not_white
  test_rounding::test_white_data_are_white test_rounding::test_counts_of_signs_at_both_ends
_trials 2: what counters do to a step, beside the size of the entries before and after it; and a dtype
  test_phases::test_a_counter_that_fades_is_held_where_it_has_faded test_phases::test_orbits_agree_with_the_thresholds
  test_phases::test_what_neither_fades_nor_comes_round_is_refused
basins/collapse 2: of 1 + the norm, on a loss whose size is fixed, in double precision only
  test_theory_collapse::test_orbits_in_the_ellipse_collapse
  test_theory_collapse::test_below_the_critical_step_they_do_not
basins/counting 3: the sum 1 of n shares, which come rounded to their own precision
  test_tolerance_ends::test_shares_sum_to_one
basins/critical_points 4: gradients of curvature times the box, its ends, eigenvalues of the largest and the usual
  test_critical_points::test_units_of_the_loss_and_of_the_parameters_do_not_matter
  test_critical_points::test_what_is_known_of_test_functions
  test_critical_points::test_sets_and_singular_points_are_one_row_each
basins/grouping 1: of the reach of a cell, beside what the two ends of a distance round to
  test_attractors::test_the_groups_are_those_of_distances_between_one_and_two_cells
  test_attractors::test_cells_that_do_not_fit_into_one_number
basins/refined 1: returns, of the size of the orbit; far from the rounding of either precision
  test_refined::test_near_a_doubling_nothing_is_called_quasi_periodic
  test_refined::test_an_invariant_circle_is_quasi_periodic test_refined::test_sources_pairs_and_single_precision_agree
basins/stability_diagram 1: steps of an orbit, of its size; the far end alone, a slow approach that is no cycle
  test_claims_past_threshold::test_momentum_comes_to_its_verdict
basins/tallies 1: whole numbers of up to 1e12 lanes
  test_tolerance_ends::test_quantiles_of_few_and_of_many
  test_measures::test_steps_are_counted_and_their_quantiles_are_close
basins/volumes 1, basins/walks 1: no tolerance: the level of a test of agreement; a ladder that has come close enough
bifurcation/_lanes 3: steps and returns, of the size of the orbit
  test_units::test_periods_of_diagrams test_bifurcation_diagrams::test_a_slow_approach_is_no_cycle
  test_rounding::test_a_momentum_that_is_all_rounding_makes_no_cycle
bifurcation/_system 2: rank, of the largest singular value; 1e-6 chooses between directions that are both right
  test_units::test_branches_and_doublings test_bifurcation_continuation::test_doublings_in_single_precision
bifurcation/bounded 1, boundaries/critical_steps 1: the least width that may be asked for, of it; the end refused
  test_tolerance_ends::test_brackets_no_narrower_than_their_floats
  test_bifurcation_diagrams::test_brackets_at_the_ends_of_the_range
bifurcation/cascade 1: no tolerance: which of two sentences says that no cycle was found
bifurcation/continuation 2: multipliers at a flip, which have no unit; 1e-9 of a step ends a branch that does not go on
  test_bifurcation_continuation::test_a_branch_is_born_in_a_flip
  test_bifurcation_continuation::test_doublings_in_single_precision
bifurcation/normal_forms 1: rank, of the largest singular value
  test_bifurcation_continuation::test_doublings_in_single_precision
  test_bifurcation_continuation::test_normal_forms_take_whole_manifolds
bifurcation/points 3: multipliers, which have no unit, at a bifurcation or a jump; and how finely it is sought
  test_tolerance_ends::test_flips_are_told_from_jumps
boundaries/edges 1: the distance of neighbouring floats, of the norm of the points
  test_tolerance_ends::test_brackets_of_neighbouring_floats_are_left_alone
  test_boundaries_edges::test_an_edge_at_the_origin_ends_at_the_size_of_the_segment
boundaries/fractal 3: scales, of the largest coordinate; the least float; and one rounding, which is what is asked for
  test_boundaries_fractal::test_scales_below_single_precision_are_flagged
  test_boundaries_fractal::test_chaos_leaves_nothing_to_fit
boundaries/saddles 1, stability/implicit 1: eigenvalues, of the largest
  test_transformations::test_no_end_point_of_a_manifold_has_a_derivative
  test_transformations::test_the_derivative_of_an_end_point
stability/centre_stable 2: iterations, of the norms of the fixed point and of the coordinates
  test_centre_stable::test_a_sheared_singular_map test_centre_stable::test_against_a_power_series
boundaries/tracking 1: the length of a segment, of its place; double precision only
  test_boundaries_edges::test_an_orbit_on_the_ellipse_stays_there
  test_boundaries_edges::test_an_edge_that_is_no_edge_of_the_map_is_lost
curvature/exact 2: eigenvalues and asymmetry, of the largest entry
  test_rounding::test_counts_of_signs_at_both_ends test_tolerance_ends::test_matrices_are_symmetric_to_their_rounding
curvature/extremes 1: a residual, of the matrix that is seen so far
  test_rounding::test_lanczos_scales_with_the_loss
  test_rounding::test_lanczos_in_single_precision_finds_what_lies_below_a_large_eigenvalue
curvature/pairs 2: residuals and gains of values, of the largest eigenvalue seen
  test_eigenpairs::test_pairs_come_as_often_as_they_are_there
curvature/stochastic 1: the width of a picture, of the largest eigenvalue; nothing is decided by it
  test_curvature::test_spectral_density_integrates_to_one_and_finds_the_bulk
data/whitening 2: singular values, of the largest and of what the precision of the inputs makes of all of them
  test_tolerance_ends::test_directions_that_are_rounding_are_missing
  test_rounding::test_many_samples_have_the_rank_they_have
ensembles/_tuning 1, studies/critical_map/study 1, studies/tables 1: no tolerance: seconds, and orbits announced
estimators/designs 2: allocations, of n times the weight, and effective numbers, beside sums over strata; host, double
  test_tolerance_ends::test_equal_weights_are_equal_whatever_their_number
estimators/weights 3: sums, of the sums of all weights; host, double
  test_tolerance_ends::test_sums_in_another_order_are_the_same
  test_estimators_designs::test_misses_lost_in_the_rounding_of_sums
flow/deviation 1: times, of themselves, in the precision of the step sizes
  test_tolerance_ends::test_times_are_whole_numbers_of_steps test_deviation::test_times_are_chosen_on_the_host
flow/gradient_flow 1: times beyond the end, of it
  test_tolerance_ends::test_the_end_of_a_flow_is_on_its_way
flow/method 2: no tolerance: the shortest step of a solver; an equal step may be longer by 1e-6 of itself
flow/separation 4: no tolerance: which step sizes are followed together; the printed bound; how finely a check is solved
flow/status 2: a jump within the rounding of time, of 1 + the norm: a flow that is small in these units goes on longer
  test_tolerance_ends::test_time_that_cannot_go_on test_deviation::test_how_flows_stop_is_told_apart
losses/initialisation 2: no tolerance: how finely a root is sought, of itself
losses/linear 1, theory/linear 5, theory/factorisations 1, theory/strata 2: ranks, ties and whiteness, of the largest
  test_rounding::test_many_samples_have_the_rank_they_have test_rounding::test_almost_white_data_are_not_white
  test_rounding::test_white_data_are_white test_rounding::test_ties_are_ties_of_the_dtype
losses/quadratic_networks 1: moments of inputs that are 1 and 3 where they are right
  test_losses_factorization::test_design_against_gauss_hermite test_losses_factorization::test_bad_input
losses/testbeds 1: eigenvalues, of n times the largest
  test_tolerance_ends::test_forms_of_low_rank_have_a_floor test_floors::test_an_indefinite_form_has_no_floor
losses/worst_case 2: times beyond the end, of it, in the precision they have
  test_tolerance_ends::test_the_end_of_the_worst_case_is_on_its_way
lyapunov 1: the exponent itself, against the digits there are
  test_phases::test_no_exponents_of_a_memory_at_rest test_lyapunov::test_what_collapses_and_what_leaves
minima/curves 2, minima/flatness 3, minima/manifold 4: residuals and ranks, of slope and size in units of their own
  test_units::test_points_on_the_manifold_of_minima test_minima::test_projection_is_quadratic_and_leaves_minima_alone
  test_minima::test_a_curve_on_a_manifold_of_more_dimensions_stays_on_it
orbits/cycles 5: residuals, returns and ranks, of the size of the cycle and the slope of its map
  test_units::test_period_two_by_newtons_method test_units::test_other_cycles_by_newtons_method
  test_cycles::test_single_precision test_cycles::test_a_cycle_that_is_not_there_is_not_confirmed
orbits/single 1, outcomes 5: what floats hold; losses, of their floor and size; returns, of the size of the orbit
  test_tolerance_ends::test_radii_and_gradients_that_floats_hold test_floors::test_a_floor_that_is_told_wrong_and_right
  test_floors::test_rounding_below_the_floor_is_none test_units::test_cycles_of_the_engine
sampling/networks 1: angles of columns, root n epsilon
  test_sampling_sources::test_singular_values_against_lapack
stability/fixed_points 3: a step and a residual, of the size of the state; a slope that is too large, in units of 1
  test_units::test_a_minimum_at_the_origin_is_a_fixed_point test_units::test_a_passage_of_a_saddle_has_no_period
  test_stability_maps::test_kinks_are_refused_and_steep_curvature_is_not
stability/growth 7: the modulus 1, in the precision of the matrix; 1e-8 of itself is proved; the rest is a search
  test_tolerance_ends::test_a_rotation_does_not_grow
  test_stability_maps::test_numerical_radius_is_the_maximum_over_all_directions
stability/kinds 10: eigenvalues, of the largest; losses, of curvature times size squared, and of a floor they round at
  test_tolerance_ends::test_a_minimum_whose_floor_is_large test_units::test_critical_points_and_their_kinds
  test_floors::test_an_undeclared_floor_is_tested
stability/maps 2: the modulus 1, and asymmetry, of the largest entry
  test_tolerance_ends::test_a_rotation_stays_in_the_stable_space
stability/singular 1: determinants, of those of their size
  test_rounding::test_a_determinant_is_constant_to_rounding_only
  test_rounding::test_the_singular_set_where_determinants_leave_the_range_of_floats
stability/thresholds 2: the modulus 1, root n; step sizes, of themselves
  test_stability_maps::test_threshold_in_single_precision
  test_stability_maps::test_thresholds_and_multipliers_against_closed_forms
studies/bifurcation/cascades 1, studies/cycle/study 3: cycles that are one, of their size; flips, of the step size
  test_cycle_study::test_both_mirror_images_are_found test_cycle_study::test_branches_and_their_doublings
  test_cycle_study::test_minima_that_fill_a_continuum_count_as_one
studies/bifurcation/study 5: gaps of sweeps and ranges of values, of their size
  test_bifurcation_study::test_sweeps_that_differ_by_rounding_do_not_differ
  test_bifurcation_study::test_where_sweeps_differ
  test_bifurcation_study::test_one_value_that_all_orbits_settle_on_is_a_line_in_the_middle
studies/building 4: values of a loss, of the larger ones; residuals, of slope and size; what 32 bits resolve
  test_tolerance_ends::test_a_floor_is_looked_at_in_the_units_of_the_loss
  test_tolerance_ends::test_minima_are_sampled_in_any_units test_floors::test_tolerances_that_32_bits_cannot_meet
studies/critical/study 2: curvature, of 2 over the step size; gradients below 1e-10, in units of 1: targets near 1 only
  test_studies_linear::test_stable_share_in_a_box_off_the_centre
studies/escape/relu_levels 1, studies/escape/saddle_escape 1: breakpoints; gradients, of curvature times radius
  test_escape_study::test_every_end_lies_on_its_level_or_is_counted_apart
  test_escape_study::test_who_rests_at_a_saddle_goes_on
studies/flow/study 2: distances, of the way that was gone: not tested at the ends, the flow's own error is larger
  test_flow_study::test_the_bound_of_a_quadratic_has_the_constants_of_the_formula
studies/heatmap/study 1: a distance, of the ellipse
  test_studies::test_distance_to_the_ellipse_against_a_dense_curve
studies/multipliers/study 2: the modulus 1; eigenvalues, of the largest
  test_multipliers_study::test_bad_input_ends_with_one_message
  test_multipliers_study::test_along_the_minima
studies/overfitting/endings 1: a product, of the largest singular value of its target
  test_tolerance_ends::test_products_are_those_of_a_stratum_to_a_thousandth
studies/overfitting/lingering 4: no tolerance: the first time that is kept, how finely flows are solved
studies/reproduce/a 1: rows beyond a step size, of it: they are printed, not judged
  test_reproduce::test_a_1a
testing 5: what two ways of one number may differ by, and differences of a loss, of their size and the step
  test_contract::test_losses_of_the_catalogue_keep_it test_contract::test_losses_that_do_not
  test_contract::test_rules_of_the_catalogue_keep_it test_contract::test_rules_that_do_not
theory/_clipping 1, theory/knowledge 3: no tolerance: quadratures, of their values, and where a density has ended
theory/hessian_bounds/constructions 1: no tolerance: how finely a factor is sought, of itself
theory/relu/neurons 1: breakpoints, of their distance from the ends, and gradients of a risk of fixed size
  test_theory_relu::test_tolerances_depend_on_the_breakpoint_and_not_on_the_size
  test_theory_relu::test_almost_critical_points_are_told_apart
"""


def sites(source: str) -> int:
    """How many calls that give a tolerance, and numbers as small as one, are in a module: no defaults."""
    nodes, told = [*ast.walk(ast.parse(source))], set()
    for node in nodes:
        given = []
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            given = [*node.args.defaults, *node.args.kw_defaults]
        elif isinstance(node, ast.ClassDef):
            given = [line.value for line in node.body if isinstance(line, ast.AnnAssign)]
        told |= {id(part) for default in given if default is not None for part in ast.walk(default)}
    small = [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, float)]
    called = [n.func for n in nodes if isinstance(n, ast.Call)]
    names = [getattr(func, "attr", getattr(func, "id", None)) for func in called]
    return sum(0 < abs(n.value) <= 1e-3 and id(n) not in told for n in small) + sum(name in MEASURES for name in names)


def rows():
    """Modules with their numbers of sites, what is said of them, and the names of tests, row by row."""
    for row in re.split(r"\n(?=\S)", ROWS.strip()):
        head, *tests = row.split("\n")
        where, says = head.split(": ", 1)
        yield [(name, int(number)) for name, number in (one.split() for one in where.split(", "))], says, tests


def test_every_tolerance_is_listed():
    paths = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
    mine = {name: path for name, path in paths.items() if name.split("/")[0] not in ELSEWHERE}
    counts = {name[:-3]: sites(path.read_text()) for name, path in mine.items() if path.name != "show.py"}
    listed = [one for modules, _, _ in rows() for one in modules]
    assert len(listed) == len(dict(listed)), "a module has two rows"
    assert dict(listed) == {name: number for name, number in counts.items() if number}


def test_the_tests_that_are_named_exist():
    there = {
        f"{path.stem}::{name}"
        for path in HERE.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for modules, says, lines in rows():
        named = " ".join(lines).split()
        assert set(named) <= there, modules
        assert named or says.startswith("no tolerance"), modules
