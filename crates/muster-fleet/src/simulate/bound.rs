//! What a fleet that keeps the objective costs at least, whoever sizes it.

use super::boots::Boots;
use super::load::{Load, saved_by_each};
use super::scenario::Scenario;

/// Durations of the blocks that are tried, in objectives, until one is worse than the one before.
const BLOCKS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// Boots that are tried, as shares of the median.
const BOOTS: [f64; 8] = [0.0, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0];
/// Prices of a late request, in seconds of an instance: next to nothing, and more than any is worth.
const LOWEST_PRICE_S: f64 = 1e-3;
const HIGHEST_PRICE_S: f64 = 1e6;
/// How far the price of the next duration of the blocks may be from the price of this one.
const NEXT_PRICE: f64 = 8.0;
/// Bisections of the price end where it is known to this factor.
const PRICE_RATIO: f64 = 1.4;
/// Steps of the ascent, for each duration and, twice, for the best.
const TRIED_ASCENTS: u32 = 8;
const ASCENTS: u32 = 25;
/// How far the first step goes.
const RATE: f64 = 0.15;
/// What a second of work is worth before the ascent, and `free` where there is only the billing minimum.
const WORKED: f64 = 0.3;
const FREE: f64 = 0.3;
/// Cells of `free` in the time that a launch pays for beyond the boot, and in all, at most.
const CELLS: f64 = 16.0;
const MOST_CELLS: f64 = 1e6;
/// Launches that a bill of no minimum is proven for.
const MOST_LAUNCHES: f64 = 1e6;

/// Returns instance-hours that no policy undercuts which has at most 1 % of the requests late, among
/// all that do not cost more than `known_hours`.
///
/// `known_hours` is what a policy is known to cost that does, or infinite.
///
/// Proof. Let `W` be the objective. An instance *runs* from when it takes work until it is terminated.
///
/// 1. *Blocks.* The requests are cut into blocks of consecutive arrivals, the first at `u`, the last at
///    `v - W`. If no more than `n` instances run at any time from `u` to `v`, at least `late(n)`
///    requests of the block are late, which is counted by serving it with `n`: see `Load::least_late`.
/// 2. *Price.* Let `N` be the number of requests. For every price `p >= 0` of a late request, a policy
///    with at most `N / 100` of them has `cost >= cost + p (late - N / 100)`, so that the least of the
///    right side over all policies is a bound, and so is the least of anything that is not above it. For
///    `late` the sum of `late(n)` over the blocks is taken, `n` being the most that run at one time of
///    the block, and for `late(n)` the largest convex function below it. It does not rise with `n`, so that
///    where levels are many it is counted for one `n` in many, and taken to be as low for those before it.
/// 3. *Boots.* An instance that boots for `b` and runs for `r` costs `max(m, b + r)`, `m` being the
///    billing minimum. For any `o >= 0`, this is at least `max(m, o + r) + d`, where `d` is `b - o` if
///    that is negative, and else `max(m, b) - max(m, o)`. An instance that never runs costs `m`, or more.
///    So with the boots that are drawn, the first `k` launches cost no less than the sum of
///    `max(m, o + r)` over those that run, less the most that the sums of `-min(d, m)` over the first
///    launches reach, and `k` is `known_hours / m` at most. An instance of a schedule boots for the
///    median, and `o` is not above it; one that is there from the begin pays no boot.
/// 4. *Work.* All requests are served, late or not, so that runs last no less than all services divided
///    by the slots of an instance. For `0 <= w <= 1` that much times `w` may be added to the cost where a
///    second of a run is counted as `1 - w` seconds.
/// 5. *Minimum.* Let `q = max(0, m - o)`, `free(t)` any function with values from 0 to `1 - w`, and `F(s, e)`
///    its integral. A run from `s` to `e` costs `max(m, o + e - s) >= o + F(s, s + q) + (e - s) - F(s, e)`:
///    if `e - s >= q`, `F(s, s + q)` is not above `F(s, e)`, and else the difference is
///    `F(e, s + q) <= q - (e - s)`. This cost is a sum of what each begin and each second cost, so that it
///    does not matter which begin and which end are one instance's.
/// 6. *Levels.* So the `n`-th level may be taken to run whenever `n` instances do, and all the
///    levels cost what all the instances do. As `late(n)` is convex, the `n`-th level saves what it falls by
///    from `n - 1` to `n`, whatever the others do. The least of the right side is therefore no less than
///    the sum over the levels of the least for each (Lin, Wierman, Andrew and Thereska, "Dynamic
///    right-sizing for power-proportional data centers", 2011).
/// 7. *One level.* A run that is there in the blocks from `[u1, v1]` to `[u2, v2]` begins by `v1` and ends
///    at `u2` or later. With `e` its cost does not fall, and with `s <= e` it does not rise, so that it is
///    `o + F(v1, v1 + q) + (1 - w)(u2 - v1) - F(v1, u2)` at least, also if `u2 < v1`; and if it is there
///    in one block only, it is the least of `o + F(s, s + q)` for `u1 <= s <= v1` at least. A dynamic
///    program finds the cheapest runs.
///
/// Every `p`, `o`, `w`, `free` and way to cut blocks gives a bound. The highest is searched for: the value
/// is concave in `p`, `w` and `free` together, so by following its gradient.
pub fn lower_bound_hours(arrivals: &[f64], scenario: &Scenario, known_hours: f64) -> f64 {
    if arrivals.is_empty() {
        return 0.0;
    }
    let load = Load::new(arrivals, scenario);
    let each = load.instances_a_level(scenario.max_instances);
    let mut prices = (LOWEST_PRICE_S, HIGHEST_PRICE_S);
    let mut best: Option<(Dual, f64, Value)> = None;
    for block in BLOCKS {
        let blocks = blocks(&load, each, block * scenario.target_wait_s, scenario);
        let mut dual = Dual::new(blocks, &load, each, scenario);
        let price_s = dual.price_s(prices);
        let (price_s, value) = dual.ascend(price_s, TRIED_ASCENTS, RATE);
        // The next one is worth about as much.
        prices = (price_s / NEXT_PRICE, price_s * NEXT_PRICE);
        match &best {
            Some((_, _, best)) if value.bound_s <= best.bound_s => break,
            _ => best = Some((dual, price_s, value)),
        }
    }
    let Some((mut dual, price_s, value)) = best else {
        return 0.0;
    };
    dual.choose_boot(value.launches, known_hours * 3600.0, scenario);
    let (price_s, _) = dual.ascend(price_s, ASCENTS, RATE);
    let (_, value) = dual.ascend(price_s, ASCENTS, RATE / 4.0);
    (value.bound_s / 3600.0).clamp(0.0, known_hours)
}

/// Consecutive requests.
struct Block {
    /// The first arrival.
    begin_s: f64,
    /// Until when the last may begin.
    end_s: f64,
    /// How many requests less are late by the first instance, and by each of the next level, and so on.
    saved: Vec<f64>,
}

fn blocks(load: &Load, each: u32, block_s: f64, scenario: &Scenario) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut from = 0;
    while let Some(&begin_s) = load.arrivals.get(from) {
        let count = load.arrivals[from..].partition_point(|arrival| *arrival <= begin_s + block_s);
        let requests = from..from + count;
        let by_levels = late_by_levels(count, |levels| {
            load.least_late(requests.clone(), levels as u32 * each)
        });
        let each = each as usize;
        let late: Vec<usize> = (0..=(by_levels.len() - 1) * each)
            .map(|instances| by_levels[instances.div_ceil(each)])
            .collect();
        let saved = saved_by_each(&late);
        blocks.push(Block {
            begin_s,
            end_s: load.arrivals[requests.end - 1] + scenario.target_wait_s,
            // The first instance is taken to save what the first level does; after it come whole levels.
            saved: saved
                .iter()
                .take(1)
                .chain(saved.iter().skip(1).step_by(each))
                .copied()
                .collect(),
        });
        from = requests.end;
    }
    blocks
}

/// How many of `count` requests are late with no level, with one, and so on, until none is. It does not
/// rise, so that nothing is counted between two numbers of levels with as many late ones.
fn late_by_levels(count: usize, late_with: impl Fn(usize) -> usize) -> Vec<usize> {
    let mut late = vec![count];
    while late.last().is_some_and(|late| *late > 0) {
        let from = late.len() - 1;
        let to = 2 * from.max(1);
        late.resize(to + 1, 0);
        late[to] = late_with(to);
        let mut between = vec![(from, to)];
        while let Some((from, to)) = between.pop() {
            let middle = (from + to) / 2;
            if middle == from {
                continue;
            }
            if late[from] == late[to] {
                let same = late[to];
                late[from..to].fill(same);
                continue;
            }
            late[middle] = late_with(middle);
            between.extend([(from, middle), (middle, to)]);
        }
    }
    let none = late.partition_point(|late| *late > 0);
    late.truncate(none + 1);
    late
}

/// What is the least in the proof, and what the cheapest runs do.
#[derive(Clone, Copy)]
struct Value {
    bound_s: f64,
    late: f64,
    launches: f64,
    run_s: f64,
}

/// What a level may be in a block.
#[derive(Clone, Copy)]
enum State {
    /// It does not run.
    Off,
    /// It was launched in this block and runs in no later one.
    Single,
    /// It runs in the block before, too.
    Kept,
}

/// How a state of a level in a block came about.
struct Step {
    /// In the block before, where it is off in this one, or launched.
    before: State,
    /// Whether, where it runs in the block before, too, it was launched there.
    continued: bool,
}

fn least(off_s: f64, single_s: f64, kept_s: f64) -> (f64, State) {
    if off_s <= single_s && off_s <= kept_s {
        (off_s, State::Off)
    } else if single_s <= kept_s {
        (single_s, State::Single)
    } else {
        (kept_s, State::Kept)
    }
}

/// What a level costs in a block.
struct Costs {
    /// Running until the block begins, from second 0 on.
    elapsed_s: f64,
    /// Running in this block only.
    single_s: f64,
    /// When it is launched then.
    begun_s: f64,
    /// Being launched by its end, less what has elapsed until then.
    launch_s: f64,
}

/// Instances that save as many late requests each.
struct Level {
    instances: f64,
    /// The blocks that one saves late requests of, and how many.
    saved: Vec<(u32, f32)>,
}

struct Dual {
    begin_s: Vec<f64>,
    end_s: Vec<f64>,
    levels: Vec<Level>,
    allowed_late: f64,
    billing_minimum_s: f64,
    /// `o` in the proof.
    boot_s: f64,
    /// What the boots may have cost less.
    boots_less_s: f64,
    /// `w` in the proof.
    worked: f64,
    /// Seconds of instances that all requests together take.
    work_s: f64,
    /// `q` in the proof.
    paid_s: f64,
    cell_s: f64,
    /// `free` in cells of time, and its integral until each of them.
    free: Vec<f64>,
    free_s: Vec<f64>,
}

impl Dual {
    fn new(blocks: Vec<Block>, load: &Load, each: u32, scenario: &Scenario) -> Self {
        let count = blocks.iter().map(|block| block.saved.len()).max();
        let instances = std::iter::once(1.0).chain(std::iter::repeat(f64::from(each)));
        let level = |instances| Level {
            instances,
            saved: Vec::new(),
        };
        let mut levels: Vec<Level> = instances.take(count.unwrap_or(0)).map(level).collect();
        for (at, block) in blocks.iter().enumerate() {
            for (level, saved) in levels.iter_mut().zip(&block.saved) {
                level.saved.push((at as u32, *saved as f32));
            }
        }
        let mut dual = Self {
            begin_s: blocks.iter().map(|block| block.begin_s).collect(),
            end_s: blocks.iter().map(|block| block.end_s).collect(),
            levels,
            allowed_late: load.allowed_late() as f64,
            billing_minimum_s: scenario.billing_minimum_s,
            boot_s: 0.0,
            boots_less_s: 0.0,
            worked: WORKED,
            work_s: load.services.iter().sum::<f64>() / f64::from(scenario.slots),
            paid_s: 0.0,
            cell_s: 1.0,
            free: Vec::new(),
            free_s: Vec::new(),
        };
        dual.set_boot(scenario.boot_s);
        dual
    }

    fn set_boot(&mut self, boot_s: f64) {
        self.boot_s = boot_s;
        self.paid_s = (self.billing_minimum_s - boot_s).max(0.0);
        let until_s = self.end_s.last().copied().unwrap_or(0.0) + self.paid_s;
        // Where no launch pays for more than the boot, `free` has no use.
        self.cell_s = if self.paid_s > 0.0 {
            let cells = (MOST_CELLS * self.paid_s / until_s)
                .floor()
                .clamp(1.0, CELLS);
            self.paid_s / cells
        } else {
            until_s + 1.0
        };
        let free = (FREE * self.paid_s / self.billing_minimum_s.max(self.boot_s).max(1e-9))
            .min(1.0 - self.worked);
        self.free = vec![free; (until_s / self.cell_s) as usize + 2];
        self.integrate();
    }

    fn integrate(&mut self) {
        let mut sum = 0.0;
        self.free_s.clear();
        self.free_s.extend(self.free.iter().map(|free| {
            let before = sum;
            sum += free * self.cell_s;
            before
        }));
    }

    /// The integral of `free` until then.
    fn free_until(&self, at_s: f64) -> f64 {
        let cell = ((at_s / self.cell_s) as usize).min(self.free.len() - 1);
        self.free_s[cell] + self.free[cell] * (at_s - cell as f64 * self.cell_s)
    }

    /// Chooses the boot that gives the highest bound for so many launches.
    fn choose_boot(&mut self, launches: f64, known_s: f64, scenario: &Scenario) {
        let most = (known_s / scenario.billing_minimum_s).clamp(0.0, MOST_LAUNCHES) as usize;
        let mut boots = Boots::new(scenario);
        let drawn: Vec<f64> = (0..most).map(|_| boots.next_s(scenario.boot_s)).collect();
        let minimum_s = scenario.billing_minimum_s;
        let least_s = drawn.iter().copied().fold(scenario.boot_s, f64::min);
        let of_median = BOOTS.map(|share| share * scenario.boot_s);
        let (boot_s, less_s) = of_median
            .into_iter()
            .chain([least_s])
            .map(|boot_s| {
                let (mut less_s, mut sum_s) = (0.0f64, 0.0);
                for drawn_s in &drawn {
                    let more_s = if *drawn_s < boot_s {
                        drawn_s - boot_s
                    } else {
                        drawn_s.max(minimum_s) - boot_s.max(minimum_s)
                    };
                    sum_s -= more_s.min(minimum_s);
                    less_s = less_s.max(sum_s);
                }
                (boot_s, less_s)
            })
            .max_by(|a, b| (a.0 * launches - a.1).total_cmp(&(b.0 * launches - b.1)))
            .unwrap_or((0.0, 0.0));
        self.set_boot(boot_s);
        self.boots_less_s = less_s;
    }

    /// The least of `F(s, s + q)` for `s` within a block, and that `s`: one end of the block, or of a
    /// cell, as `q` is a whole number of cells.
    fn least_free(&self, block: usize) -> (f64, f64) {
        let (begin_s, end_s) = (self.begin_s[block], self.end_s[block]);
        let cells = (begin_s / self.cell_s).ceil() as usize..=(end_s / self.cell_s) as usize;
        let ends = [begin_s, end_s].into_iter();
        ends.chain(cells.map(|cell| cell as f64 * self.cell_s))
            .map(|at_s| {
                (
                    self.free_until(at_s + self.paid_s) - self.free_until(at_s),
                    at_s,
                )
            })
            .fold(
                (f64::INFINITY, begin_s),
                |a, b| if b.0 < a.0 { b } else { a },
            )
    }

    /// Solves every level for this price of a late request. Where a gradient is asked for, it becomes by
    /// how much the value grows with `free`, for each cell, in seconds of a cell.
    fn solve(&self, price_s: f64, mut gradient: Option<&mut Vec<f64>>) -> Value {
        let costs = self.costs();
        if let Some(changes) = gradient.as_deref_mut() {
            changes.clear();
            changes.resize(self.free.len() + 1, 0.0);
        }
        let mut value = Value {
            bound_s: self.worked * self.work_s - price_s * self.allowed_late - self.boots_less_s,
            run_s: 0.0,
            late: 0.0,
            launches: 0.0,
        };
        let mut steps = Vec::new();
        for level in &self.levels {
            let (least_s, last) = self.cheapest(&level.saved, price_s, &costs, &mut steps);
            value.bound_s += level.instances * least_s;
            self.trace(
                level,
                &steps,
                last,
                &costs,
                &mut value,
                gradient.as_deref_mut(),
            );
        }
        if let Some(changes) = gradient {
            let mut sum = 0.0;
            for change in changes {
                sum += *change;
                *change = sum;
            }
        }
        value
    }

    fn costs(&self) -> Vec<Costs> {
        let of = |block: usize| {
            let (begin_s, end_s) = (self.begin_s[block], self.end_s[block]);
            let (least_free_s, begun_s) = self.least_free(block);
            Costs {
                elapsed_s: (1.0 - self.worked) * begin_s - self.free_until(begin_s),
                single_s: self.boot_s + least_free_s,
                begun_s,
                launch_s: self.boot_s + self.free_until(end_s + self.paid_s)
                    - (1.0 - self.worked) * end_s,
            }
        };
        (0..self.begin_s.len()).map(of).collect()
    }

    /// Returns the cheapest that the level can be, and its state in the end; `steps` become what led there.
    fn cheapest(
        &self,
        level: &[(u32, f32)],
        price_s: f64,
        costs: &[Costs],
        steps: &mut Vec<Step>,
    ) -> (f64, State) {
        steps.clear();
        let (mut off_s, mut single_s, mut kept_s) = (0.0, f64::INFINITY, f64::INFINITY);
        // What runs, and what was launched in the block before, less what has elapsed.
        let (mut running_s, mut launched_s) = (self.free_until(self.paid_s), f64::INFINITY);
        for &(block, saved) in level {
            let costs = &costs[block as usize];
            let (rest_s, before) = least(off_s, single_s, kept_s);
            let continued = launched_s < running_s;
            running_s = launched_s.min(running_s);
            steps.push(Step { before, continued });
            kept_s = running_s + costs.elapsed_s;
            single_s = rest_s + costs.single_s;
            launched_s = rest_s + costs.launch_s;
            off_s = rest_s + price_s * f64::from(saved);
        }
        least(off_s, single_s, kept_s)
    }

    /// Adds up what the cheapest way does.
    fn trace(
        &self,
        level: &Level,
        steps: &[Step],
        last: State,
        costs: &[Costs],
        value: &mut Value,
        mut gradient: Option<&mut Vec<f64>>,
    ) {
        let instances = level.instances;
        let level = &level.saved;
        let cell = |at_s: f64| ((at_s / self.cell_s).round() as usize).min(self.free.len());
        let mut add = |from_s: f64, to_s: f64| {
            if let Some(changes) = gradient.as_deref_mut() {
                changes[cell(from_s)] += instances;
                changes[cell(to_s)] -= instances;
            }
        };
        let (mut at, mut state) = (level.len(), last);
        while at > 0 {
            at -= 1;
            let block = level[at].0 as usize;
            match state {
                State::Off => value.late += instances * f64::from(level[at].1),
                State::Single => {
                    value.launches += instances;
                    let begun_s = costs[block].begun_s;
                    add(begun_s, begun_s + self.paid_s);
                }
                State::Kept => {
                    let last_s = self.begin_s[block];
                    while at > 0 && !steps[at].continued {
                        at -= 1;
                    }
                    if steps[at].continued {
                        at -= 1;
                        value.launches += instances;
                        let begun_s = self.end_s[level[at].0 as usize];
                        value.run_s += instances * (last_s - begun_s);
                        add(last_s, begun_s + self.paid_s);
                    } else {
                        // It was there from the begin.
                        value.run_s += instances * last_s;
                        add(last_s, self.paid_s);
                        return;
                    }
                }
            }
            state = steps[at].before;
        }
    }

    /// Bisects the price of a late request.
    fn price_s(&self, (mut low_s, mut high_s): (f64, f64)) -> f64 {
        while high_s / low_s > PRICE_RATIO {
            let price_s = (low_s * high_s).sqrt();
            if self.solve(price_s, None).late > self.allowed_late {
                low_s = price_s;
            } else {
                high_s = price_s;
            }
        }
        (low_s * high_s).sqrt()
    }

    /// Follows the gradient from here to the highest value that is seen, and returns that and its price. The
    /// steps begin at `rate`.
    fn ascend(&mut self, mut price_s: f64, steps: u32, rate: f64) -> (f64, Value) {
        let mut gradient = Vec::new();
        let mut value = self.solve(price_s, Some(&mut gradient));
        let mut best = (price_s, value);
        let mut best_worked = self.worked;
        let mut best_free = self.free.clone();
        for step in 0..steps {
            let rate = rate / (1.0 + f64::from(step) / 5.0).sqrt();
            let balance = |more: f64, less: f64| (more - less) / (more + less).max(1e-9);
            self.worked += rate * balance(self.work_s, value.run_s.max(0.0));
            self.worked = self.worked.clamp(0.0, 1.0);
            for (free, slope) in self.free.iter_mut().zip(&gradient) {
                *free = (*free + rate * slope / (1.0 + slope.abs())).clamp(0.0, 1.0 - self.worked);
            }
            self.integrate();
            price_s *= (rate * balance(value.late, self.allowed_late)).exp();
            value = self.solve(price_s, Some(&mut gradient));
            if value.bound_s > best.1.bound_s {
                best = (price_s, value);
                best_worked = self.worked;
                best_free.copy_from_slice(&self.free);
            }
        }
        self.worked = best_worked;
        self.free = best_free;
        self.integrate();
        best
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn late_requests_are_counted_only_where_their_number_changes() {
        let late = |levels: usize| match levels {
            ..200 => 50,
            200..203 => 50 - 10 * (levels - 199),
            203..230 => 7,
            _ => 0,
        };
        let counted = Cell::new(0);
        let counting = |levels| {
            counted.set(counted.get() + 1);
            late(levels)
        };
        let expected: Vec<usize> = (0..=230).map(late).collect();
        assert_eq!(late_by_levels(50, counting), expected);
        assert!(counted.get() < 40, "{} times", counted.get());
    }
}
