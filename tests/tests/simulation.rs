//! The proof by simulation. `make simulate SEEDS=10000` runs so many seeds, `make simulate SEED=17` one of them.

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tillflow_engine::log::sim::Defect;
use tillflow_tests::simulation::{Report, Scenario, Shop, Toy, run};

/// Seeds that every test run tries.
const SEEDS: u64 = 300;
const SHOP_SEEDS: u64 = 150;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().filter(|v| !v.is_empty()).map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is no number")))
}

/// Panics that a processor is asked for are part of the run.
fn quiet() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>().is_none_or(|m| *m != "as asked") {
            before(info);
        }
    }));
}

/// Runs seeds on all cores; each run is one thread's.
fn all(scenario: &(dyn Scenario + Sync), seeds: u64) {
    quiet();
    let (first, last) = match number("SEED") {
        Some(seed) => (seed, seed),
        None => (1, number("SEEDS").unwrap_or(seeds)),
    };
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let total = Mutex::new((Report::default(), 0_u64));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > last {
                break;
            }
            let outcome = run(seed, scenario, None);
            let mut total = total.lock().unwrap();
            match outcome {
                Ok(report) => total.0.add(&report),
                Err(wrong) => {
                    total.1 += 1;
                    println!("seed {seed} of {}:", scenario.name());
                    wrong.iter().take(8).for_each(|line| println!("    {line}"));
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (report, failed) = total.into_inner().unwrap();
    let ran = last.saturating_sub(first) + 1;
    println!("{}: {ran} seeds, {failed} failed, {:.1} s\n{report}", scenario.name(), began.elapsed().as_secs_f64());
    assert_eq!(failed, 0, "make simulate SEED=… runs one of them alone");
}

#[test]
fn a_counter_comes_to_what_a_naive_model_says() {
    all(&Toy, SEEDS);
}

#[test]
fn the_shop_comes_to_what_a_calm_run_says() {
    all(&Shop, SHOP_SEEDS);
}

#[test]
fn a_seed_decides_everything() {
    quiet();
    for seed in 1..=5 {
        assert_eq!(run(seed, &Toy, None).unwrap(), run(seed, &Toy, None).unwrap(), "seed {seed}");
        assert_eq!(run(seed, &Shop, None).unwrap(), run(seed, &Shop, None).unwrap(), "seed {seed}");
    }
}

#[test]
fn a_disk_full_between_the_brokers_commit_and_the_local_write_loses_and_doubles_nothing() {
    quiet();
    let times = |scenario: &dyn Scenario, seeds: u64| -> u64 {
        let reports = (1..=seeds).map(|seed| run(seed, scenario, None).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong:?}")));
        reports.map(|r| r.faults.get("disk full between the commit and the local write").copied().unwrap_or(0)).sum()
    };
    let (counter, shop) = (times(&Toy, 150), times(&Shop, 40));
    println!("{counter} times with the counter, {shop} times with the shop");
    assert!(counter >= 20 && shop >= 5, "{counter} and {shop} times: too few to say anything");
}

/// Within so many seeds each planted defect must be found.
const FOUND_WITHIN: u64 = 200;

#[test]
fn every_planted_defect_is_found() {
    quiet();
    let mut missed = Vec::new();
    for &defect in Defect::ALL {
        let found = (1..=FOUND_WITHIN).find_map(|seed| run(seed, &Toy, Some(defect)).err().map(|wrong| (seed, wrong)));
        match found {
            Some((seed, wrong)) => {
                println!("{defect:?}: seed {seed}: {}", wrong.first().map(|w| w.chars().take(200).collect::<String>()).unwrap_or_default());
            }
            None => missed.push(defect),
        }
    }
    assert_eq!(missed, [], "not found within {FOUND_WITHIN} seeds");
}
