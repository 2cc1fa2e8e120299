//! What must hold of prices whatever happens.

use super::{
    DemandSignals, Pricing, PricingParameters, Score, decide,
    guardrail_table::{hours, inputs},
};
use crate::shopper::Shopper;
use proptest::prelude::*;
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Map, json};
use tillflow_engine_api::{Globals, Group, testing::Driver};
use tillflow_schemas::{DemandSignal, Event, Inventory, PriceChange, ProductPrice, Record, Timestamp, UserEvent};

prop_compose! {
    fn cents(least: i64, most: i64)(n in least..most) -> Decimal { Decimal::new(n, 2) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_changed_price_is_inside_its_hard_range_and_only_a_hard_limit_leaves_the_soft_one(
        (base, current, day_ago) in (cents(1, 50_000), cents(1, 50_000), cents(1, 50_000)),
        (cost, min, max) in (prop::option::of(cents(0, 50_000)), prop::option::of(cents(0, 50_000)), prop::option::of(cents(0, 50_000))),
        (stock, score) in (prop::option::of(-5_i64..200), 0.0..10.0_f64),
        (changed, direction, marked_down) in (prop::option::of(0.0..100.0_f64), -1_i8..=1, prop::option::of(0.0..100.0_f64)),
        (fixed, charm, margin, velocity) in (any::<bool>(), any::<bool>(), 0_i64..50, 0.0..3.0_f64),
    ) {
        let mut i = inputs();
        (i.base, i.current, i.day_ago, i.stock, i.price_fixed) = (base, current, day_ago, stock, fixed);
        (i.limits.cost, i.limits.min_price, i.limits.max_price) = (cost, min, max);
        i.demand.score = Score::rounded(score);
        i.demand.velocity = velocity;
        i.last_change = changed.map(|h| (hours(h), direction));
        i.last_markdown = marked_down.map(hours);
        let mut p = PricingParameters { min_margin: super::Number(Decimal::new(margin, 2)), ..PricingParameters::default() };
        if charm {
            p.charm_endings = vec![super::Number(Decimal::new(99, 2))];
        }
        let decision = decide(&i, &p);
        if decision.gate.is_some() {
            prop_assert_eq!(decision.price, current);
            return Ok(());
        }
        let new = decision.price;
        prop_assert_ne!(new, current);
        prop_assert_eq!(new.round_dp(2), new, "whole cents");
        let floor = cost.map(|c| c * (Decimal::ONE + p.min_margin.0)).max(min).unwrap_or(Decimal::ZERO);
        prop_assert!(new >= floor && max.is_none_or(|max| new <= max), "{new} in {floor}..{max:?}");
        let hard_bit = i.limits.broken_by(current, &p, 2) || decision.bites.iter().any(|b| ["min_price", "cost_floor", "max_price"].contains(&b.bound.name()));
        if !hard_bit {
            let (least, most) = (current * Decimal::new(85, 2), current * Decimal::new(115, 2));
            prop_assert!(new >= least && new <= most, "{new} in {least}..{most}: {decision:?}");
            prop_assert!((new - current).abs() >= current * Decimal::new(5, 3));
            // The other two soft ranges hold where the price was inside both.
            let inward = |d: Decimal, s| d.round_dp_with_strategy(2, s);
            let ranges = [(day_ago, 75, 125), (base, 70, 150)].map(|(of, below, above)| {
                let least = inward(of * Decimal::new(below, 2), RoundingStrategy::ToPositiveInfinity);
                (least, inward(of * Decimal::new(above, 2), RoundingStrategy::ToNegativeInfinity))
            });
            let inside = |price: Decimal| ranges.iter().all(|(least, most)| price >= *least && price <= *most);
            prop_assert!(!inside(current) || inside(new), "{new} in {ranges:?}: {decision:?}");
        }
    }
}

/// What happens in a shop, in the order of time; minutes from the start, a shopper, what, a product.
type Story = Vec<(i64, u8, u8, u8)>;

fn story(within_minutes: i64) -> impl Strategy<Value = Story> {
    prop::collection::vec((0..within_minutes, 0_u8..6, 0_u8..8, 0_u8..3), 1..80).prop_map(|mut story| {
        story.sort();
        story
    })
}

fn minute(n: i64) -> Timestamp {
    Timestamp::from_millis(1_772_323_200_000 + n * 60_000)
}

fn shopper_event(n: usize, story: &Story, user: impl Fn(u8) -> String) -> Option<Event> {
    let (at, who, what, product) = *story.get(n)?;
    let product = format!("p{product}");
    let mut fields = match what {
        0 | 1 => json!({"event_type": "product_viewed", "product_id": product, "dwell_ms": i64::from(what) * 40_000}),
        2 | 3 => json!({"event_type": "added_to_cart", "product_id": product}),
        4 => json!({"event_type": "checkout_started"}),
        5 => json!({"event_type": "order_completed", "order_id": format!("o{n}"), "items": [{"product_id": product, "quantity": 2}]}),
        6 => {
            let last_order = story.iter().take(n).rposition(|s| (s.1, s.2) == (who, 5))?;
            json!({"event_type": "order_cancelled", "order_id": format!("o{last_order}")})
        }
        _ => return None,
    };
    let more = json!({"event_id": format!("e{n}"), "user_id": user(who), "timestamp": minute(at)});
    fields.as_object_mut()?.extend(more.as_object()?.clone());
    Some(Event::from_value("user_event", None, fields).unwrap())
}

fn stock_records(story: &Story) -> Vec<Inventory> {
    let records = story.iter().filter(|s| s.2 == 7).map(|&(at, who, _, product)| Inventory {
        product_id: format!("p{product}").as_str().into(),
        stock_level: i64::from(who) * 27,
        last_updated: minute(at),
    });
    records.collect()
}

/// What a customers task says, in order: counts, and how far it has come.
enum Said {
    Signal(DemandSignal),
    Watermark(Timestamp),
}

/// A customers task that gets every `of`th user, and commits after `commit` events.
fn customers(story: &Story, part: u8, of: u8, commit: usize, user: impl Fn(u8) -> String) -> Vec<Said> {
    let group = Group::new::<UserEvent>("customers", None, &Map::new()).with::<Shopper>("shopper").with::<DemandSignals>("demand_signals");
    let mut task = Driver::group(&group);
    let mut said = Vec::new();
    let mut since_commit = 0;
    for (n, step) in story.iter().enumerate() {
        if step.1 % of != part {
            continue;
        }
        let Some(event) = shopper_event(n, story, &user) else { continue };
        task.send(event);
        since_commit += 1;
        if since_commit == commit {
            since_commit = 0;
            said.extend(task.emitted::<DemandSignal>().into_iter().map(Said::Signal));
            said.push(Said::Watermark(task.task().watermark()));
        }
    }
    said.extend(task.emitted::<DemandSignal>().into_iter().map(Said::Signal));
    said.push(Said::Watermark(minute(story.last().map_or(0, |s| s.0) + 10 * DAY)));
    assert!(task.failures.is_empty(), "{:?}", task.failures);
    said
}

const DAY: i64 = 24 * 60;

/// The products task: reads what the customers tasks said and the stock records in an order drawn from `seed`, but never
/// lets the watermark pass a stock record it has not read.
fn products(tasks: Vec<Vec<Said>>, stock: Vec<Inventory>, mut seed: u64) -> (Vec<PriceChange>, Vec<ProductPrice>) {
    let group = Group::new::<Inventory>("products", Some("customers"), &Map::new()).with::<Pricing>("pricing");
    let mut driver = Driver::group(&group);
    let globals = Globals::default();
    for (n, base) in ["100", "9.99", "0.40"].iter().enumerate() {
        let product = json!({"product_id": format!("p{n}"), "category": "c", "base_price": base, "cost": (n == 1).then_some("8.50")});
        driver.task().process(&Event::from_value("product", None, product).unwrap(), &globals).unwrap();
    }
    let mut watermarks = vec![Timestamp::MIN; tasks.len()];
    let mut inputs: Vec<_> = tasks.into_iter().map(|t| t.into_iter().peekable()).collect();
    let mut stock = stock.into_iter().peekable();
    let mut draw = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    loop {
        let choice = draw(inputs.len() + 1);
        match inputs.get_mut(choice) {
            Some(input) => match input.next() {
                Some(Said::Signal(signal)) => drop(driver.task().process(&signal.into_event(), &globals).unwrap()),
                Some(Said::Watermark(to)) => watermarks[choice] = to,
                None => {}
            },
            None => {
                if let Some(record) = stock.next() {
                    driver.task().process(&record.into_event(), &globals).unwrap();
                }
            }
        }
        let least = *watermarks.iter().min().unwrap();
        let unread = stock.peek().map_or(Timestamp::MAX, |s| Timestamp::from_millis(s.last_updated.millis() - 1));
        let failed = driver.task().advance(least.min(unread), &globals).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        if stock.peek().is_none() && inputs.iter_mut().all(|i| i.peek().is_none()) {
            let mut changes: Vec<PriceChange> = driver.emitted();
            // Order holds a key only.
            changes.sort_by_key(|c| c.product_id.clone());
            let mut prices: Vec<ProductPrice> = driver.emitted();
            prices.sort_by_key(|p| p.product_id.clone());
            return (changes, prices);
        }
    }
}

/// The same, with signals of nothing every half hour: they wake all products and count for none.
fn kept_awake(said: Vec<Said>) -> Vec<Said> {
    let mut awake = Vec::new();
    let mut clock = minute(0);
    for said in said {
        if let Said::Watermark(to) = said {
            while clock < to {
                let nothing = |n| DemandSignal { product_id: format!("p{n}").as_str().into(), bucket: clock, ..DemandSignal::default() };
                awake.extend((0..3).map(|n| Said::Signal(nothing(n))));
                awake.push(Said::Watermark(clock));
                clock = clock + std::time::Duration::from_secs(1_800);
            }
        }
        awake.push(said);
    }
    awake
}

fn own_name(who: u8) -> String {
    format!("u{who}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn prices_do_not_depend_on_how_far_which_task_has_read(story in story(40 * 60), seeds: (u64, u64), commits in (1_usize..20, 1_usize..20)) {
        let run = |commit: usize, seed: u64| {
            let tasks = (0..3).map(|part| customers(&story, part, 3, commit, own_name)).collect();
            products(tasks, stock_records(&story), seed)
        };
        prop_assert_eq!(run(commits.0, seeds.0), run(commits.1, seeds.1));
    }

    #[test]
    fn who_the_shoppers_are_never_enters_a_price(story in story(40 * 60), seed: u64, shift in 1_u8..6) {
        let run = |user: &dyn Fn(u8) -> String| {
            products(vec![customers(&story, 0, 1, 5, user)], stock_records(&story), seed)
        };
        prop_assert_eq!(run(&own_name), run(&|who| format!("someone else {}", (who + shift) % 6)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_product_that_rested_has_the_prices_of_one_that_did_not(story in story(20 * DAY), seed: u64) {
        let run = |awake: bool| {
            let mut task = customers(&story, 0, 1, 5, own_name);
            if awake {
                task = kept_awake(task);
            }
            products(vec![task], stock_records(&story), seed)
        };
        prop_assert_eq!(run(false), run(true));
    }
}

#[test]
fn the_stories_of_these_properties_do_change_prices() {
    let story: Story = (0..60).map(|n| (n * 40, (n % 6) as u8, (n % 8) as u8, (n % 3) as u8)).collect();
    let (changes, _) = products(vec![customers(&story, 0, 1, 5, own_name)], stock_records(&story), 1);
    assert!(changes.len() > 10, "{}", changes.len());
}
