//! Whether an instance came to what the model says: by its stores, after it has ended, and by what it emitted last.

use super::{
    Mode,
    counts::TOP,
    loyalty::{ACCOUNTS, Account},
    model::Model,
    related::Tables,
    run::PARTITIONS,
};
use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::HashMap, path::Path};
use tillflow_schemas::UserId;
use tillflow_state::{Directory, Durability, Shared, Table};
use tillflow_tests::Record;

#[derive(Deserialize)]
struct Told {
    product_id: String,
    related: Vec<(String, u32)>,
}

/// Compares; returns what was compared, and for bounded lists how far they are off.
///
/// # Errors
/// What differs.
pub fn check(model: &Model, mode: Mode, data: &Path, related: &[Record]) -> Result<Value> {
    let shared = Shared::new(64 << 20, 32 << 20);
    let store = |group: &str, partition: u32| -> Result<_> {
        let directory = Directory::open(&data.join(format!("{group}-{partition}")), &[], &shared)?;
        Ok(directory.backend("default", &[], Durability::Volatile))
    };
    let accounts = Table::<UserId, Account>::new(ACCOUNTS);
    let mut points = HashMap::new();
    for partition in 0..PARTITIONS {
        accounts.scan(&store("customers", partition)?, &(), |user, account| {
            points.insert(user.into_string(), account.lifetime);
            true
        })?;
    }
    let mut expected = 0;
    for (user, lifetime) in model.points() {
        ensure!(points.get(user) == Some(&lifetime), "points of {user}: {:?} instead of {lifetime}", points.get(user));
        expected += lifetime;
    }
    let sum: i64 = points.values().sum();
    ensure!(sum == expected, "{sum} points in all instead of {expected}");

    let mut kept = 0;
    for partition in 0..PARTITIONS {
        let counts = Tables::new().read(mode, partition, PARTITIONS, &store("products", partition)?)?;
        let all = counts.all();
        kept += all.len();
        for ((of, other), count) in all {
            let exact = model.count(of, other);
            ensure!(mode == Mode::Bounded || count == exact, "{of} with {other}: {count} instead of {exact}");
            ensure!(count >= exact, "{of} with {other}: {count} is less than {exact}");
        }
    }
    ensure!(mode == Mode::Bounded || kept == model.pairs(), "{kept} pairs instead of {}", model.pairs());

    let mut told = HashMap::new();
    for record in related {
        let list: Told = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
        told.insert(list.product_id.clone(), list.related);
    }
    let off = lists(model, mode, &told)?;
    Ok(json!({"points": sum, "pairs_counted": model.pairs(), "pairs_kept": kept, "lists": told.len(), "lists_off": off}))
}

/// Exact lists equal the model's in members and order. Of others it is said which share of the true members they hold,
/// and by how much their counts are too high on average.
fn lists(model: &Model, mode: Mode, told: &HashMap<String, Vec<(String, u32)>>) -> Result<Value> {
    let top = model.top(TOP);
    ensure!(top.len() == told.len(), "lists of {} products instead of {}", told.len(), top.len());
    let (mut held, mut of, mut excess, mut counted) = (0, 0, 0.0, 0);
    for (product, exact) in &top {
        let list = told.get(*product).map_or(&[][..], Vec::as_slice);
        let members: Vec<&str> = list.iter().map(|(other, _)| other.as_str()).collect();
        let expected: Vec<&str> = exact.iter().map(|(other, _)| *other).collect();
        ensure!(mode == Mode::Bounded || members == expected, "the list of {product}: {members:?} instead of {expected:?}");
        // One that is as frequent as the last of the true list is as good.
        let least = exact.last().map_or(0, |(_, count)| *count);
        held += members.iter().filter(|other| model.count(product, other) >= least).count();
        of += exact.len();
        for (other, count) in list {
            let exact = model.count(product, other).max(1);
            excess += f64::from(count.saturating_sub(exact)) / f64::from(exact);
            counted += 1;
        }
    }
    Ok(match mode {
        Mode::Exact => json!(0),
        Mode::Bounded => json!({"members_held": held as f64 / of.max(1) as f64, "count_excess_mean": excess / f64::from(counted.max(1))}),
    })
}
