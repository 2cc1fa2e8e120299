//! What must hold after every run.

use super::{
    cluster::{Cluster, outputs},
    scenario::Making,
};
use crate::compare::{Outputs, broken_invariants, differences};
use std::collections::BTreeMap;
use tillflow_engine::{log::TopicPartition, worker::POSITION};
use tillflow_schemas::Role;
use tillflow_state::{Backend, Memory};

/// All that is wrong.
pub fn all(cluster: &Cluster, making: &Making, expected: &Outputs) -> Vec<String> {
    let found = outputs(cluster);
    let mut wrong = differences(&(making.normal)(expected.clone()), &(making.normal)(found.clone()));
    // Dead letters have a check of their own: some are asked for.
    let found = found.into_iter().filter(|(topic, _)| topic != "dead_letters").collect();
    wrong.extend(broken_invariants(&found));
    wrong.extend(dead_letters(cluster));
    wrong.extend(state(cluster, making));
    wrong
}

/// Each poisoned record is a dead letter, once, and nothing else is.
fn dead_letters(cluster: &Cluster) -> Vec<String> {
    let Some(topic) = cluster.catalog.of_schema("dead_letter").and_then(|t| cluster.catalog.index(&t.name)) else { return Vec::new() };
    let world = cluster.sim.0.lock();
    let mut found: BTreeMap<(String, u32, i64), u32> = BTreeMap::new();
    for partition in 0..cluster.catalog.topics()[topic].partitions {
        let at = TopicPartition { topic, partition };
        for record in world.partition(at).map(|p| p.read(at, 0, usize::MAX, false).0).unwrap_or_default() {
            let header = |name: &str| record.header(name).map(|h| String::from_utf8_lossy(h).into_owned()).unwrap_or_default();
            let place =
                (header("source_topic"), header("source_partition").parse().unwrap_or(0), header("source_offset").parse().unwrap_or(0));
            *found.entry(place).or_default() += 1;
        }
    }
    let expected: BTreeMap<_, u32> = cluster.poison.borrow().iter().map(|p| (p.clone(), 1)).collect();
    if found == expected { Vec::new() } else { vec![format!("dead letters: expected {expected:?}, found {found:?}")] }
}

/// Every task's store holds what its changelog says, and that is what the model says.
fn state(cluster: &Cluster, making: &Making) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, wired) in cluster.wired().iter().enumerate() {
        let group = wired.group.name;
        let changelog = cluster.catalog.of_group(Role::Changelog, group).and_then(|t| cluster.catalog.index(&t.name)).unwrap_or_default();
        let mut tasks = BTreeMap::new();
        for partition in 0..wired.partitions {
            let at = TopicPartition { topic: changelog, partition };
            let mut logged = Memory::default();
            let records = cluster.sim.0.lock().partition(at).map(|p| p.read(at, 0, usize::MAX, false).0).unwrap_or_default();
            let mut rows = records.iter().filter_map(|r| Some((r.key.as_deref()?, r.value.as_deref())));
            logged.apply(&mut rows).expect("memory");
            let Some(machine) = cluster.machine_of(group, partition) else {
                wrong.push(format!("{group}-{partition} has no owner"));
                continue;
            };
            let disk = cluster.sim.0.lock().disk(&machine, group, partition);
            let mut stored = disk.read().rows().clone();
            stored.remove(POSITION);
            if stored != *logged.rows() {
                let one = stored.iter().find(|(k, v)| logged.rows().get(*k) != Some(*v)).map(|(k, _)| k);
                let other = logged.rows().iter().find(|(k, v)| stored.get(*k) != Some(*v)).map(|(k, _)| k);
                wrong.push(format!("{group}-{partition}: the store differs from its changelog at {:?}", one.or(other)));
            }
            tasks.insert(partition, logged);
        }
        if n == 0 {
            wrong.extend((making.state)(&tasks));
        }
    }
    wrong
}
