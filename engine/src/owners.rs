//! Which instance owns which task. Each says it in the first transaction after it took a task over; all follow, so that
//! any instance knows whom to ask about a key.
//!
//! Which process has an instance's place, too. Each takes its place before it joins, and all follow, so that of two that were
//! given one name the older one learns it and ends. Neither of them could tell by what the brokers refuse: they fence each
//! other, and a worker may be fenced by its own join or by a new owner of its partitions as well.

use crate::log::{LogError, NewRecord, Record, TopicPartition, kafka::taken_over};
use parking_lot::RwLock;
use std::{collections::BTreeMap, sync::Arc};
use tillflow_schemas::{Catalog, Record as _, TaskOwner, Timestamp, partition::partition};
use uuid::Uuid;

/// As whom an instance states what it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The instance's name.
    pub instance: String,
    /// Where others ask it, as a URL.
    pub address: Option<String>,
    /// Tells this process from others of that name.
    pub life: Uuid,
}

impl Claimant {
    /// The record that says that a task is its own.
    pub fn claim(&self, catalog: &Catalog, group: &str, number: u32, at: Timestamp) -> Option<NewRecord> {
        self.says(catalog, task(group, number), at)
    }

    /// The record that takes the instance's place in a group from whoever has it.
    pub fn take_place(&self, catalog: &Catalog, group: &str, at: Timestamp) -> Option<NewRecord> {
        self.says(catalog, place(group, &self.instance), at)
    }

    fn says(&self, catalog: &Catalog, task: String, at: Timestamp) -> Option<NewRecord> {
        let topic = catalog.of_schema(TaskOwner::SCHEMA)?;
        let (instance, address, life) = (self.instance.clone(), self.address.clone(), Some(self.life.to_string()));
        let owner = TaskOwner { task, instance, address, life };
        Some(NewRecord {
            to: TopicPartition { topic: catalog.index(&topic.name)?, partition: partition(owner.task.as_bytes(), topic.partitions) },
            at,
            value: tillflow_schemas::to_bytes(&owner).ok(),
            key: Some(owner.task.into_bytes()),
            headers: Vec::new(),
        })
    }
}

/// The last known owner of each task, and of each place.
#[derive(Clone, Default)]
pub struct Owners {
    known: Arc<RwLock<BTreeMap<String, TaskOwner>>>,
    claimant: Option<Claimant>,
}

impl Owners {
    /// Nobody is known yet. Of `claimant`'s own places it is known when they are taken.
    pub fn new(claimant: Option<Claimant>) -> Self {
        Self { known: Arc::default(), claimant }
    }

    /// Takes what a record says.
    ///
    /// # Errors
    /// When another process took the claimant's place.
    pub fn hear(&self, record: &Record) -> Result<(), LogError> {
        let Some(value) = &record.value else { return Ok(()) };
        let owner: TaskOwner = match tillflow_schemas::from_bytes(value) {
            Ok(owner) => owner,
            Err(e) => {
                tracing::warn!(offset = record.offset, "an owner's record can't be read: {e}");
                return Ok(());
            }
        };
        let former = self.known.write().insert(owner.task.clone(), owner.clone());
        let life = self.claimant.as_ref().map(|c| c.life.to_string());
        let was_mine = former.is_some_and(|f| f.life.is_some() && f.life == life);
        if was_mine && owner.life != life && is_place(&owner.task) {
            return Err(LogError::Fenced(taken_over(&format!("{} is taken", owner.task), &owner.instance)));
        }
        Ok(())
    }

    /// Who owns a task.
    pub fn of(&self, group: &str, number: u32) -> Option<TaskOwner> {
        self.known.read().get(&task(group, number)).cloned()
    }
}

fn task(group: &str, number: u32) -> String {
    format!("{group}/{number}")
}

fn place(group: &str, instance: &str) -> String {
    format!("{group}@{instance}")
}

fn is_place(task: &str) -> bool {
    task.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: Option<Vec<u8>>) -> Record {
        let at = TopicPartition { topic: 0, partition: 0 };
        Record { at, offset: 0, logged_at: Timestamp::EARLIEST, key: None, value, headers: Vec::new() }
    }

    fn claimant(instance: &str) -> Claimant {
        Claimant { instance: instance.into(), address: Some(format!("http://{instance}:8080")), life: Uuid::new_v4() }
    }

    #[test]
    fn the_last_claim_of_a_task_counts_and_what_can_t_be_read_changes_nothing() {
        let (catalog, owners) = (Catalog::built_in(4).unwrap(), Owners::default());
        for claimant in [claimant("one"), Claimant { address: None, ..claimant("two") }] {
            let record = claimant.claim(&catalog, "customers", 2, Timestamp::EARLIEST).unwrap();
            assert_eq!((record.key.as_deref(), record.to.partition), (Some(&b"customers/2"[..]), 0));
            assert_eq!(catalog.topics()[record.to.topic].name, "tillflow.owners");
            for value in [record.value, Some(b"{}".to_vec()), None] {
                owners.hear(&said(value)).unwrap();
            }
            let owner = owners.of("customers", 2).unwrap();
            assert_eq!((owner.instance, owner.address), (claimant.instance, claimant.address));
        }
        assert_eq!((owners.of("customers", 1), owners.of("products", 2)), (None, None));
    }

    #[test]
    fn a_place_is_taken_by_a_later_life_of_the_name_alone() {
        let catalog = Catalog::built_in(4).unwrap();
        let (me, other) = (claimant("till-7"), claimant("till-8"));
        let (former, later) = (Claimant { life: Uuid::new_v4(), ..me.clone() }, Claimant { life: Uuid::new_v4(), ..me.clone() });
        let owners = Owners::new(Some(me.clone()));
        let take = |by: &Claimant, group: &str| owners.hear(&said(by.take_place(&catalog, group, Timestamp::EARLIEST).unwrap().value));
        let claim = |by: &Claimant| owners.hear(&said(by.claim(&catalog, "customers", 0, Timestamp::EARLIEST).unwrap().value));
        for group in ["customers", "products"] {
            take(&former, group).unwrap();
            take(&me, group).unwrap();
            take(&me, group).unwrap();
            take(&other, group).unwrap();
        }
        for by in [&me, &other, &later] {
            claim(by).unwrap();
        }
        let error = take(&later, "products").unwrap_err().to_string();
        assert!(error.contains("products@till-7") && error.contains("instance.id"), "{error}");
    }

    #[test]
    fn who_has_no_name_loses_no_place() {
        let (catalog, owners) = (Catalog::built_in(4).unwrap(), Owners::new(None));
        for _ in 0..2 {
            owners.hear(&said(claimant("till-7").take_place(&catalog, "customers", Timestamp::EARLIEST).unwrap().value)).unwrap();
        }
    }
}
